"""Matrices that are not multiplied in a row, by their names and shapes.

Attention, gates, adapters, recurrent layers, tables of embeddings, heads and networks
side by side, residual blocks: what is known to be no chain is refused.
"""

import re
from pathlib import Path

from .checkpoints import bias_names
from .families import FAMILIES, config_path, reason_against_config

ADVICE = (
    "say --arch torchvision:NAME or module:factory, which knows the wiring, or name "
    "the layers of one chain by --order")

# What a part of a matrix's name says about the wiring.
_ATTENTION = re.compile(r"\w*att(n|ention)s?_?\d*|mha|w?qkv\w*|query_key_value")
# Names of one letter's layer are a sign only beside those of another letter: W_v alone
# may be a layer for vertices.
_PROJECTION = re.compile(
    r"(?P<before>((to|w|fc|lin|linear|proj)_?)?)"
    r"(?P<letter>q|k|v|query|queries|keys?|values?)"
    r"(?P<after>(_?(proj|projection|lin|linear|fc|layer|net))?)")
_LORA = re.compile(r"(lora.*|loha.*|lokr.*|adapters?|hada_.*)")
_GATED = re.compile(r"(gate|gate_proj|gate_up_proj|router|experts?|moe)")
_EMBEDDING = re.compile(
    r"wte|wpe|embed|embed_tokens|\w*embeddings?|lm_head|pos_embed")
_RECURRENT = re.compile(r"weight_(ih|hh|hr)(_l\d+(_reverse)?)?")
# The layers of recurrent networks that are written by hand
_RECURRENT_LAYER = re.compile(r"(h|hidden)_?(2|to)_?(h|hidden)|[wu]?_?hh")
_GATE_OF_STATE = re.compile(r"(?P<side>[wu])_?(?P<gate>[zrhifogc])")
_RESIDUAL_BRANCH = re.compile(r"(skip|shortcut|downsample|residual|res_?skip)\d*")
_RESIDUAL_BLOCK = re.compile(
    r"(res|resnet|residual)?_?blocks?_?\d*|"
    r"res(idual)?_?(units?|layers?|nets?)?_?\d*")
# Names of heads that usually stand side by side on one trunk.
_RIVALS = (
    ({"policy", "pi", "actor", "action", "policy_head", "policy_net", "action_net"},
     {"value", "vf", "v", "critic", "value_head", "value_net", "baseline"}),
    ({"mu", "mean", "loc", "fc_mu", "mu_head", "fc_mean", "to_mu"},
     {"logvar", "log_var", "log_std", "logstd", "sigma", "std", "scale", "fc_var",
      "fc_logvar", "log_sigma", "to_logvar", "fc_log_var"}),
    ({"value", "value_stream"}, {"advantage", "adv", "advantage_stream"}),
    ({"student", "online"}, {"teacher", "target"}),
    ({"generator", "netg"}, {"discriminator", "critic", "netd"}),
)


def refuse_other_wirings(
    file: str, matrices: list[str], shapes: dict[str, tuple[int, ...]],
    place: str | Path = "",
) -> None:
    """Refuse matrices whose names say that they are not multiplied in a row.

    Parameters
    ----------
    file : str
        The file's name, for the message.
    matrices : list of str
        Names of the matrices that a chain would have.
    shapes : dict of str to tuple
        Of all weights of the file, by their names.
    place : str or Path
        Where the file is, beside which the message looks for a config.json.

    Raises
    ------
    ValueError
        For attention, gates, adapters, recurrent layers, tables of embeddings, and
        heads or networks side by side.

    Examples
    --------
    >>> shapes = {"q_proj.weight": (4, 4), "k_proj.weight": (4, 4)}
    >>> refuse_other_wirings("a.pt", list(shapes), shapes)
    Traceback (most recent call last):
    ValueError: a.pt: not known to be one chain of layers: k_proj.weight, ...
    """
    for pattern, words in (
            (_LORA, "factors of an adapter such as LoRA, which are added to weights "
                    "that are not in this file"),
            (_ATTENTION, _OF_ATTENTION),
            (_GATED, "a gate, which multiplies two branches"),
            (_RESIDUAL_BRANCH, "a way around other layers, as in residual networks")):
        for name in matrices:
            for part in name.split("."):
                if pattern.fullmatch(part.lower()):
                    advice = ADVICE
                    if pattern is _ATTENTION:
                        advice = _advice_on_attention(place)
                    raise _no_chain(file, name, words, advice)
    for name in matrices:
        if _is_in_projection(name, shapes[name]):
            raise _no_chain(file, name, _OF_ATTENTION, _advice_on_attention(place))
        if _RECURRENT.fullmatch(name.rpartition(".")[2].lower()):
            raise _no_chain(
                file, name, "a recurrent layer (its matrices are not called weight), "
                "which runs once per step", _NO_HELP)
        for part in name.lower().split("."):
            if _RECURRENT_LAYER.fullmatch(part):
                raise _no_chain(file, name, "a layer of a recurrent network, which "
                                "runs once per step", _NO_HELP)
        if _is_table(name, matrices, shapes):
            raise _no_chain(
                file, name, "an embedding of tokens, part of a larger network")
    _refuse_gates_of_states(file, matrices)
    for projections in _projections(matrices):
        if len(projections) >= 2:
            names = ", ".join(sorted(projections.values()))
            raise _no_chain(file, names, _OF_ATTENTION, _advice_on_attention(place))
    _refuse_heads(file, matrices)
    _refuse_twins(file, matrices, shapes)


_OF_ATTENTION = "an attention, which multiplies its input by itself"


def _advice_on_attention(place: str | Path) -> str:
    """Return what helps with a transformer, by the configuration beside its file."""
    if place and config_path(place).is_file():
        reason = reason_against_config(place)
        if reason:
            return f"{reason}, so that it is not compared by circuits; else {ADVICE}"
    return (
        f"transformers are compared by their circuits where a config.json is beside "
        f"the file, with a model_type such as {', '.join(list(FAMILIES)[:3])}; else "
        f"{ADVICE}")


_NO_HELP = (
    "recurrent layers have no chain, with --arch neither; layers beside them that make "
    "a chain can be named by --order")


def _is_in_projection(name: str, shape: tuple[int, ...]) -> bool:
    """Tell whether a matrix is the three projections of an attention in one."""
    *_, module, last = ["", *name.lower().split(".")]
    if last == "in_proj_weight":  # a parameter of nn.MultiheadAttention
        return True
    return module in ("in_proj", "c_attn") and shape[0] == 3 * shape[1]


def _is_table(
    name: str, matrices: list[str], shapes: dict[str, tuple[int, ...]],
) -> bool:
    """Tell whether a matrix is a table of embeddings, whose rows are looked up.

    The table itself must be called so, and have no bias. Where its rows are as many as
    another matrix has columns, and its columns are not, it is a layer called embedding.
    """
    module = name.lower().split(".")[-2:][0]
    has_bias = any(bias in shapes for bias in bias_names(name))
    if has_bias or not _EMBEDDING.fullmatch(module):
        return False
    rows, columns = shapes[name]
    inputs = {shapes[other][1] for other in matrices if other != name}
    return rows not in inputs or columns in inputs


def _projections(matrices: list[str]) -> list[dict[str, str]]:
    """Return matrices that differ in a q, k or v of their names, by their letters.

    Names that are alike but for the letter stand in one dict; dicts are keyed by it.
    """
    by_frame: dict[str, dict[str, str]] = {}
    for name in matrices:
        parts = name.lower().split(".")
        for i, part in enumerate(parts):
            match = _PROJECTION.fullmatch(part)
            if match:
                frame = f"{match['before']}*{match['after']}"
                place = ".".join([*parts[:i], frame, *parts[i + 1:]])
                letters = by_frame.setdefault(place, {})
                letters[match["letter"][0]] = name
    return list(by_frame.values())


def _refuse_heads(file: str, matrices: list[str]) -> None:
    """Refuse several heads on one trunk, and several networks in one file."""
    parts_by_name = {name: set(name.lower().split(".")) for name in matrices}
    all_parts: set[str] = set().union(*parts_by_name.values()) if matrices else set()
    for first, second in _RIVALS:
        rivals = sorted(all_parts & first)[:1] + sorted(all_parts & second)[:1]
        if all_parts & first and all_parts & second and len(set(rivals)) == 2:
            raise _no_chain(
                file, " and ".join(rivals), "networks or heads side by side")
    heads = set()
    for name in matrices:
        match = re.search(
            r"(?:^|\.)((?:heads|classifiers|outputs|branches|towers|decoders)\.\w+|"
            r"\w*head(?:_?\w+)?|\w+_head)(?=\.)", name.lower())
        if match:
            heads.add(match[1])
    if len(heads) > 1:
        raise _no_chain(file, " and ".join(sorted(heads)), "heads side by side")


def _refuse_gates_of_states(file: str, matrices: list[str]) -> None:
    """Refuse W_z beside U_z: what recurrent cells do to inputs and to their state."""
    names_by_gate: dict[str, dict[str, str]] = {}
    for name in matrices:
        for part in name.lower().split("."):
            match = _GATE_OF_STATE.fullmatch(part)
            if match:
                names_by_gate.setdefault(match["gate"], {})[match["side"]] = name
    for by_side in names_by_gate.values():
        if len(by_side) == 2:
            raise _no_chain(
                file, " and ".join(by_side.values()), "a recurrent cell, which runs "
                "once per step", _NO_HELP)


# Words in the names of networks that are another one's copy, average or rival
_OF_TWINS = frozenset({
    "ema", "avg", "average", "averaged", "swa", "shadow", "target", "online", "teacher",
    "student", "momentum", "slow", "ref", "reference", "old", "copy", "q", "k"})


def _refuse_twins(
    file: str, matrices: list[str], shapes: dict[str, tuple[int, ...]],
) -> None:
    """Refuse two networks alike in one file, such as a network and its average.

    Their matrices have the same names and shapes behind two prefixes, of which one says
    so. Parts of one network may be alike, too.
    """
    networks: dict[str, dict[str, tuple[int, ...]]] = {}
    for name in matrices:
        parts = name.split(".")
        for i in range(1, len(parts)):
            inner = ".".join(parts[i:])
            networks.setdefault(".".join(parts[:i]), {})[inner] = shapes[name]
    prefixes_by_network: dict[str, list[str]] = {}
    for prefix, network in networks.items():
        alike = prefixes_by_network.setdefault(str(sorted(network.items())), [])
        alike.append(prefix)
    for prefixes in prefixes_by_network.values():
        words = set(re.split(r"[._\d]+", ".".join(prefixes).lower()))
        if len(prefixes) > 1 and words & _OF_TWINS:
            raise _no_chain(
                file, " and ".join(prefixes[:2]), "networks of one shape side by side")


def refuse_residual_blocks(file: str, ends: dict[str, tuple[int, int]]) -> None:
    """Refuse blocks that may be passed by: as many outputs as inputs, and the name.

    One block called so is enough. Of blocks with other names there must be two alike,
    each of several layers, since plain layers of one width in a row are common.

    Parameters
    ----------
    file : str
        The file's name, for the message.
    ends : dict of str to (int, int)
        Numbers of inputs and of outputs of the layers of a chain, by their names, in
        order.

    Raises
    ------
    ValueError
        For such blocks.

    Examples
    --------
    >>> refuse_residual_blocks("a.pt", {"fc.weight": (4, 8), "res1.weight": (8, 8)})
    Traceback (most recent call last):
    ValueError: a.pt: not known to be one chain of layers: res1 looks like a block ...
    """
    groups: dict[str, list[str]] = {}
    for name in ends:
        module = name.rpartition(".")[0]
        parts = module.split(".")
        for i, part in enumerate(parts):
            if _RESIDUAL_BLOCK.fullmatch(part.lower()):
                numbered = i + 1 < len(parts) and parts[i + 1].isdecimal()
                module = ".".join(parts[:i + 1 + numbered])
                break
        else:
            module = f"?{module.rpartition('.')[0]}"
        groups.setdefault(module, []).append(name)
    alike: dict[str, list[str]] = {}
    for module, members in groups.items():
        inputs, _ = ends[members[0]]
        _, outputs = ends[members[-1]]
        if inputs != outputs:
            continue
        if not module.startswith("?"):
            raise _no_chain(
                file, module, "a block with as many outputs as inputs, which residual "
                "networks add to its input")
        if len(members) > 1 and re.search(r"\d", module):
            alike.setdefault(re.sub(r"\d+", "", module), []).append(module[1:])
    for modules in alike.values():
        if len(modules) > 1:
            raise _no_chain(
                file, " and ".join(modules[:2]), "blocks with as many outputs as "
                "inputs, which residual networks add to their inputs")


def _no_chain(
    file: str, names: str, words: str, advice: str = ADVICE,
) -> ValueError:
    verb = "look" if re.search(r", | and ", names) else "looks"
    return ValueError(
        f"{file}: not known to be one chain of layers: {names} {verb} like {words}; "
        f"{advice}")
