"""Transformers in folders: which tokens they share, and what compare says of them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformer_models import WIDTH, build, llama, weights_of

from wcka import circuits, compare_circuits
from wcka.cli import main
from wcka.weights import report
from wcka.weights.chance import beside_orders
from wcka.weights.comparison import compare_files
from wcka.weights.vocabulary import shared_rows, vocabulary_beside

TOKENS = 60


def network(seed=0, tokens=TOKENS, depth=2):
    weights, config = llama(seed, tokens=tokens, depth=depth)
    return weights, config


def save(folder, weights, config, vocabulary=None, model_type="llama"):
    """Write a folder as the library transformers does."""
    folder.mkdir(parents=True)
    stored = {name: values.contiguous() for name, values in weights.items()}
    save_file(stored, folder / "model.safetensors")
    text = json.dumps({**config, "model_type": model_type})
    (folder / "config.json").write_text(text, "utf-8")
    if vocabulary is not None:
        (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    return str(folder)


def compared(*paths, **options):
    return compare_files(list(paths), **options)


def reordered(weights, order):
    """The same network, whose tokens stand in another order."""
    changed = dict(weights)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in changed:
            changed[name] = changed[name][order]
    return changed


def test_values_are_those_of_the_circuits(tmp_path):
    one, other = network(0), network(1)
    paths = [save(tmp_path / "a", *one), save(tmp_path / "b", *other)]
    result = compared(*paths)
    tables = compare_circuits([circuits(*one), circuits(*other)])
    assert result["layers"]["ov 1"]["wcka"][0][1] == pytest.approx(
        tables["ov"][1, 0, 1], abs=1e-12)
    means = [table.mean(0)[0, 1] for table in tables.values()]
    assert result["all"]["wcka"][0][1] == pytest.approx(np.median(means), abs=1e-12)
    assert np.isnan(result["all"]["p"][0][1])
    assert result["chance"] == "unknown"
    assert result["shape"] == (TOKENS, one[0]["model.norm.weight"].numel())
    json.loads(report.as_json(result))


def test_the_text_says_each_circuit_and_what_was_assumed(tmp_path):
    paths = [save(tmp_path / name, *network(seed)) for seed, name in enumerate("ab")]
    lines = report.described(compared(*paths)).splitlines()
    assert lines[0].startswith("a  b  wCKA 0.")
    assert lines[0].endswith("(median of four circuits)")
    text = "\n".join(lines)
    assert f"{TOKENS} rows each, taken for the same tokens" in text
    assert "read as llama: 2 layers" in text
    for circuit in ("direct", "OV", "QK", "MLP"):
        assert sum(line.strip().startswith(circuit) for line in lines) == 1
    assert "over 2 layers" in text


def test_all_pairs_of_a_folder_are_compared_and_others_left_out(tmp_path):
    folder = tmp_path / "runs"
    for seed, name in enumerate("abc"):
        save(folder / name, *network(seed))
    broken, config = network(3)
    del broken["model.layers.1.mlp.up_proj.weight"]
    save(folder / "d", broken, config)
    result = compared(str(folder))
    assert np.shape(result["all"]["wcka"]) == (3, 3)
    reason, = result["left out"].values()
    assert "no layers.1.mlp.up_proj.weight" in reason


def with_layers(weights, layers):
    """The same network with some of its layers, in this order."""
    chosen = {}
    for name, values in weights.items():
        if ".layers." not in name:
            chosen[name] = values
    for number, layer in enumerate(layers):
        prefix = f"model.layers.{layer}."
        for name, values in weights.items():
            if name.startswith(prefix):
                chosen[f"model.layers.{number}.{name.removeprefix(prefix)}"] = values
    return chosen


def test_layers_of_other_depths_are_compared_at_the_same_relative_depth(tmp_path):
    """Every second layer of a network, as distilled ones begin with."""
    weights, config = network(0, depth=5)
    paths = [save(tmp_path / "deep", weights, config),
             save(tmp_path / "half", with_layers(weights, [0, 2, 4]), config),
             save(tmp_path / "short", with_layers(weights, [0, 1, 2]), config)]
    result = compared(*paths[:2])
    assert result["all"]["wcka"][0][1] == pytest.approx(1, abs=1e-12)
    names = [f"{circuit} {layer}" for circuit in ("ov", "qk", "mlp")
             for layer in range(3)]
    assert list(result["layers"]) == ["direct", *names]
    note, = [line for line in result["assumed"] if "relative depth" in line]
    assert note == ("networks have 3 to 5 layers: 3 of each are compared, at the same "
                    "relative depth")
    assert note in report.described(result).splitlines()
    # Of the first three layers, the second and the third stand elsewhere.
    short = compared(paths[0], paths[2])["layers"]
    values = [short[f"mlp {layer}"]["wcka"][0][1] for layer in range(3)]
    assert values[0] == pytest.approx(1, abs=1e-12) and max(values[1:]) < 0.99
    # Two of one depth are compared layer by layer, and nothing is said.
    same = compared(*paths[1:])
    assert not any("relative depth" in line for line in same["assumed"])


def test_an_unknown_family_is_no_transformer_and_the_refusal_says_what_helps(tmp_path):
    paths = [save(tmp_path / name, *network(seed), model_type="mamba")
             for seed, name in enumerate("ab")]
    with pytest.raises(ValueError, match=r"unknown model_type 'mamba' \(known: llama"):
        compared(*paths)
    for content, words in (
            ("{", "no JSON"), ("{}", "no model_type"), ("3", "no model_type")):
        (tmp_path / "a" / "config.json").write_text(content)
        with pytest.raises(ValueError, match=f"config.json beside it .*{words}"):
            compared(paths[0], paths[0])
    (tmp_path / "a" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"a config\.json is beside the file"):
        compared(paths[0], paths[0])


def test_layers_named_by_order_are_a_chain(tmp_path):
    paths = [save(tmp_path / name, *network(seed)) for seed, name in enumerate("ab")]
    order = ["model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"]
    result = compared(*paths, order=order)
    layers = result["chains"][paths[0]]
    assert [layer["name"].removesuffix(".weight") for layer in layers] == order


# ------------------------------------------------------------------------- the tokens


def test_tokens_are_matched_by_their_strings(tmp_path):
    weights, config = network()
    vocabulary = {f"token {row}": row for row in range(TOKENS)}
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(0)).tolist()
    moved = {f"token {row}": place for place, row in enumerate(order)}
    paths = [save(tmp_path / "a", weights, config, vocabulary),
             save(tmp_path / "b", reordered(weights, order), config, moved)]
    result = compared(*paths)
    assert result["all"]["wcka"][0][1] == pytest.approx(1, abs=1e-12)
    assert any("the same in all" in line for line in result["assumed"])
    assert "the same weights" in report.described(result).splitlines()[0]


def test_only_tokens_that_both_have_count(tmp_path):
    """A longer vocabulary, as of a model whose embedding was extended."""
    weights, config = network(tokens=TOKENS + 5)
    vocabulary = {f"token {row}": row for row in range(TOKENS + 5)}
    short = {name: values[:TOKENS] if len(values) == TOKENS + 5 else values
             for name, values in weights.items()}
    fewer = dict(list(vocabulary.items())[:TOKENS])
    paths = [save(tmp_path / "a", weights, config, vocabulary),
             save(tmp_path / "b", short, config, fewer)]
    result = compared(*paths)
    assert result["shape"][0] == TOKENS
    # The columns are those of each network: a few more of them change little.
    assert 0.9 < result["all"]["wcka"][0][1] < 1


def test_other_numbers_of_rows_without_a_tokenizer_are_refused(tmp_path):
    paths = [save(tmp_path / "a", *network()),
             save(tmp_path / "b", *network(1, tokens=TOKENS + 1))]
    with pytest.raises(ValueError, match=r"have 60 and 61 rows.*tokenizer\.json"):
        compared(*paths)


def test_networks_without_common_tokens_are_refused():
    one = {f"a{row}": row for row in range(60)}
    other = {f"b{row}": row for row in range(60)}
    with pytest.raises(ValueError, match="only 0 tokens in common"):
        shared_rows([one, other], [60, 60])


def test_rows_behind_the_end_of_an_embedding_do_not_count():
    """Tokenizers may know tokens for which a model has no row."""
    vocabulary = {f"a{row}": row for row in range(60)}
    (rows, others), _ = shared_rows([vocabulary, vocabulary], [60, 58])
    assert list(rows) == list(others) == list(range(58))


@pytest.mark.parametrize("name, content", [
    ("vocab.txt", "a\nb\nc"),
    ("vocab.json", '{"a": 0, "b": 1, "c": 2}'),
    ("tokenizer.json",
     '{"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": '
     '"c"}]}'),
    ("tokenizer.json", '{"model": {"vocab": [["a", -1.5], ["b", -2], ["c", -3]]}}'),
])
def test_vocabularies_are_read_as_tokenizers_store_them(tmp_path, name, content):
    (tmp_path / name).write_text(content, "utf-8")
    assert vocabulary_beside(tmp_path) == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": "x"}', '{"a": "x"}'])
def test_damaged_tokenizers_are_as_if_they_were_not_there(tmp_path, name, content):
    (tmp_path / name).write_text(content, "utf-8")
    assert vocabulary_beside(tmp_path) is None


def test_a_layer_called_direct_is_no_circuit():
    """Of other networks, layers have the names that their authors gave them."""
    table = beside_orders([torch.arange(12.0)[:, None]] * 2)
    result = {"files": ["a.pt", "b.pt"], "left out": {}, "layers": {"direct": table},
              "all": table, "chance": "orders", "without layers": "", "untrained": 0,
              "shape": (12, 1), "assumed": [], "undecided": "", "seconds": 1.0,
              "memory before": 0, "peak memory": 0, "mapped": 0}
    text = report.described(result)
    assert "    up to direct " in text
    assert "circuits" not in text and "tokens" not in text


# ------------------------------------------------------------ folders of both kinds


def mlp_file(path, seed=0):
    torch.manual_seed(seed)
    torch.save(torch.nn.Linear(8, 3).state_dict(), path)
    return str(path)


def test_the_same_weights_means_all_circuits(tmp_path):
    weights, config = network()
    changed = dict(weights)
    for name in weights:
        if "mlp" in name:
            changed[name] = torch.randn_like(weights[name])
    paths = [save(tmp_path / "a", weights, config),
             save(tmp_path / "b", changed, config)]
    result = compared(*paths)
    assert result["all"]["wcka"][0][1] == pytest.approx(1)
    first_line = report.described(result).splitlines()[0]
    assert "the same weights" not in first_line
    assert "though some circuits differ, down to 0." in first_line
    same = report.described(compared(paths[0], paths[0])).splitlines()[0]
    assert "the same weights, up to what wCKA does not see" in same


def test_an_adapter_beside_a_network_is_said_not_to_be_applied(tmp_path):
    paths = [save(tmp_path / name, *network(seed)) for seed, name in enumerate("ab")]
    save_file({"x": torch.ones(2)}, tmp_path / "a" / "adapter_model.safetensors")
    assumed = compared(*paths)["assumed"]
    said = [line for line in assumed if "adapter_model.safetensors" in line]
    assert len(said) == 1 and "is not applied" in said[0]


def test_a_token_may_be_a_character_that_parts_lines(tmp_path):
    weights, config = network()
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(1)).tolist()
    tokens = [f"t{i}" for i in range(TOKENS)]
    tokens[10:14] = ["\u2028", "\x0b", "\u0085", "\x1c"]
    paths = [save(tmp_path / "a", weights, config),
             save(tmp_path / "b", reordered(weights, order), config)]
    for path, words in zip(paths, (tokens, [tokens[i] for i in order])):
        text = "\n".join(words) + "\n"
        with open(f"{path}/vocab.txt", "w", encoding="utf-8", newline="") as file:
            file.write(text)
    assert compared(*paths)["all"]["wcka"][0][1] == pytest.approx(1)


def test_rows_that_count_may_be_truth_values():
    one, other = network(0), network(1)
    counts = np.arange(TOKENS) % 2 == 0

    def direct(tokens):
        networks = [circuits(*one, tokens=tokens), circuits(*other, tokens=tokens)]
        return compare_circuits(networks)["direct"][0, 0, 1]

    assert direct(counts) == direct(np.flatnonzero(counts)) == direct(list(counts))
    for wrong in (range(1000), counts[:5], [0, -1], [0.5], [[0, 1]]):
        with pytest.raises(ValueError, match="tokens: wanted rows from 0 to 59"):
            direct(wrong)
    with pytest.raises(TypeError, match="wanted what circuits"):
        compare_circuits([torch.nn.Linear(2, 2)] * 2)


def test_a_folder_is_of_what_most_of_its_files_are(tmp_path):
    folder = tmp_path / "runs"
    for seed, name in enumerate("ab"):
        save(folder / name, *network(seed))
    save(folder / "opt", *network(2), model_type="opt")
    mlp_file(folder / "x.pt")
    result = compared(str(folder))
    assert len(result["files"]) == 2 and result["chance"] == "unknown"
    reasons = list(result["left out"].values())
    assert "unknown model_type 'opt'" in reasons[0] and "no config.json" in reasons[1]
    for seed, name in enumerate("yzuv"):
        mlp_file(folder / f"{name}.pt", seed)
    result = compared(str(folder))
    assert len(result["files"]) == 5 and result["chance"] == "orders"
    assert "a transformer, and most files" in next(iter(result["left out"].values()))


def test_a_transformer_and_another_network_are_refused_by_name(tmp_path):
    path = save(tmp_path / "a", *network())
    other = mlp_file(tmp_path / "b.pt")
    with pytest.raises(ValueError, match=r"a is a transformer, and .*b\.pt is not"):
        compared(path, other)


def test_a_folder_loses_networks_of_other_unknown_tokens(tmp_path):
    folder = tmp_path / "runs"
    for seed, name in enumerate("abc"):
        save(folder / name, *network(seed, tokens=TOKENS + 4 * (name == "c")))
    result = compared(str(folder))
    assert len(result["files"]) == 2
    assert "it has 64 rows, others have 60" in next(iter(result["left out"].values()))


@pytest.mark.parametrize("name", ["モデル\u3000a", "my\u00a0model", "a\u202eb"])
def test_folders_have_any_name(tmp_path, name):
    paths = [save(tmp_path / name, *network(0)), save(tmp_path / "plain", *network(1))]
    result = compared(*paths)
    assert result["chance"] == "unknown" and result["mapped"] > 0


def test_layers_beside_a_transformer_are_compared_as_layers(tmp_path):
    folder = tmp_path / "gpt"
    save(folder, *network())
    named_there = mlp_file(folder / "probe.pt", 0)
    elsewhere = mlp_file(tmp_path / "probe.pt", 1)
    expected = compared(mlp_file(tmp_path / "x.pt", 0), elsewhere)["all"]["wcka"]
    for options in ({}, {"order": ["weight"]}, {"stored": "out-in"}):
        assert compared(named_there, elsewhere, **options)["all"]["wcka"] == expected
    also_there = mlp_file(folder / "other.pt", 1)
    assert compared(named_there, also_there)["all"]["wcka"] == expected


def test_known_tokens_are_not_taken_for_unknown_ones(tmp_path):
    """Of one network in two orders of tokens, and one whose tokens nobody knows."""
    folder = tmp_path / "runs"
    weights, config = network()
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(1)).tolist()
    tokens = {f"t{i}": i for i in range(TOKENS)}
    permuted = {f"t{old}": new for new, old in enumerate(order)}
    save(folder / "a", weights, config, tokens)
    save(folder / "b", reordered(weights, order), config, permuted)
    unknown = save(folder / "c", *network(2))
    result = compared(str(folder))
    assert result["all"]["wcka"][0][1] == pytest.approx(1)
    assert "says what tokens its 60 rows are" in result["left out"][unknown]
    with pytest.raises(ValueError, match="their tokenizers differ, and not all"):
        compared(str(folder / "a"), str(folder / "b"), unknown)


def test_rows_are_counted_among_files_of_one_kind(tmp_path):
    folder = tmp_path / "runs"
    for seed, (name, tokens) in enumerate((("a", 60), ("b", 60), ("c", 64))):
        save(folder / name, *network(seed, tokens=tokens))
    result = compared(str(folder))
    assert "it has 64 rows, others have 60" in next(iter(result["left out"].values()))


def test_an_empty_vocabulary_is_none(tmp_path):
    paths = [save(tmp_path / name, *network(seed)) for seed, name in enumerate("ab")]
    plain = compared(*paths)["all"]["wcka"]
    for path in paths:
        open(f"{path}/vocab.txt", "wb").close()
    assert compared(*paths)["all"]["wcka"] == plain


def folder_of(tmp_path, count=5):
    """A folder of networks, and the weights of one more."""
    for seed in range(count):
        save(tmp_path / "runs" / str(seed), *network(seed))
    return tmp_path / "runs", *network(count)


@pytest.mark.parametrize("command", ["compare", "family"])
def test_a_network_that_is_not_finite_is_left_out(tmp_path, command, capsys):
    folder, weights, config = folder_of(tmp_path)
    weights["model.layers.1.mlp.up_proj.weight"][1, 2] = float("nan")
    save(folder / "nan", weights, config)
    assert main([command, str(folder)]) == 0
    out = capsys.readouterr().out
    reason = "llama: layers.1.mlp.up_proj.weight holds NaN or infinity"
    assert f"left out nan: {reason}" in out
    assert main(["compare", str(folder / "0"), str(folder / "nan")]) == 2
    assert f"{folder / 'nan'}: {reason}" in capsys.readouterr().err


def test_circuits_that_are_zero_are_left_out_of_averages(tmp_path, recwarn):
    one, other = network(0), network(1)
    other[0]["model.layers.1.mlp.down_proj.weight"].zero_()
    paths = [save(tmp_path / "a", *one), save(tmp_path / "b", *other)]
    result = compared(*paths)
    tables = compare_circuits([circuits(*network(0)), circuits(*network(1))])
    of_mlp = tables["mlp"][0, 0, 1]  # that of layer 1 is zero
    means = [tables["mlp"][0], *(tables[name].mean(0) for name in tables
                                 if name != "mlp")]
    expected = np.median([mean[0, 1] for mean in means])
    assert result["all"]["wcka"][0][1] == pytest.approx(expected, abs=1e-12)
    assert f"{paths[1]}: left out of averages, as zero or the same for all rows: " \
        "mlp 1" in result["assumed"]
    text = report.described(result)
    assert f"{of_mlp:.4f} on average over 1 layer (" in text
    assert "nan" not in text.lower()
    assert not recwarn.list


def test_a_family_goes_on_without_a_network_that_is_zero(tmp_path, capsys):
    folder, weights, config = folder_of(tmp_path)
    for name in ("mlp.down_proj", "self_attn.o_proj"):
        weights[f"model.layers.0.{name}.weight"].zero_()
    save(folder / "block", weights, config)
    zero = {name: torch.zeros_like(values) for name, values in weights.items()}
    save(folder / "zero", zero, config)
    assert main(["family", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "left out zero: its circuits are zero, or the same for all rows" in out
    assert "block: left out of averages, as zero or the same for all rows: " \
        "ov 0, mlp 0" in out


@pytest.mark.parametrize("prefix", ["llm.", "base_model.model.", "module.llm."])
def test_a_prefix_may_stand_before_the_model_and_its_head(tmp_path, prefix):
    one, other = network(0), network(1)
    wrapped = {prefix + name: values for name, values in one[0].items()}
    paths = [save(tmp_path / "a", *one), save(tmp_path / "b", *other),
             save(tmp_path / "c", wrapped, one[1])]
    expected = compared(*paths[:2])["all"]["wcka"][0][1]
    assert compared(paths[2], paths[1])["all"]["wcka"][0][1] == pytest.approx(expected)


@pytest.mark.parametrize("config_says", [False, None])
def test_an_embedding_stands_in_for_no_head_that_is_missing(tmp_path, config_says):
    one, (weights, config) = network(0), network(1)
    del weights["lm_head.weight"]
    if config_says is not None:
        config = {**config, "tie_word_embeddings": config_says}
    paths = [save(tmp_path / "a", *one), save(tmp_path / "b", weights, config)]
    result = compared(*paths)
    text = report.described(result)
    if config_says is None:
        assert "the embedding takes its place" in text
        return
    qk = compare_circuits([circuits(*network(0)), circuits(*network(1))])["qk"]
    assert result["all"]["wcka"][0][1] == pytest.approx(qk.mean(0)[0, 1], abs=1e-12)
    assert "(median of the circuits qk)" in text
    assert "it has no unembedding: circuits that end there" in text
    assert "nan" not in text.lower()


def test_a_classifier_is_compared_by_what_it_shares_with_others(tmp_path):
    one, classifier = weights_of("bert", 0), weights_of("bert", 1)
    for name in list(classifier[0]):
        if name.startswith("cls."):
            del classifier[0][name]
    for name in ("classifier.weight", "qa_outputs.weight"):
        classifier[0][name] = torch.ones(2, WIDTH)
    paths = [save(tmp_path / "a", *one, model_type="bert"),
             save(tmp_path / "b", *classifier, model_type="bert")]
    result = compared(*paths)
    qk = compare_circuits([circuits(*weights_of("bert", seed)) for seed in (0, 1)])
    assert result["all"]["wcka"][0][1] == pytest.approx(qk["qk"].mean(0)[0, 1])
    assert f"{paths[1]}: classifier.weight, qa_outputs.weight take no part" in (
        result["assumed"])


def test_heads_of_images_with_other_classes_are_left_out(tmp_path):
    models = [build("vit", seed, num_labels=7 + seed % 2) for seed in range(3)]
    paths = []
    for name, model in zip("abc", models):
        config = model.config.to_dict()
        paths.append(save(tmp_path / name, model.state_dict(), config,
                          model_type="vit"))
    result = compared(*paths)
    tables = compare_circuits([circuits(model) for model in models])
    means = np.stack([table.mean(0) for table in tables.values()])
    all_pairs = np.array(result["all"]["wcka"])
    assert all_pairs[0, 1] == pytest.approx(tables["qk"].mean(0)[0, 1])
    assert all_pairs[0, 2] == pytest.approx(np.median(means, 0)[0, 2])
    assert "heads of other numbers of classes" in " ".join(result["assumed"])


def test_rows_of_images_are_no_tokens(tmp_path):
    models = [build("vit", seed) for seed in range(2)]
    models.append(build("vit", 2, patch_size=2))
    paths = [save(tmp_path / name, model.state_dict(), model.config.to_dict(),
                  model_type="vit") for name, model in zip("abc", models)]
    text = report.described(compared(*paths[:2]))
    assert "rows are pixels of patches: 48 rows each" in text and "token" not in text
    with pytest.raises(ValueError, match="patches have 48 and 12 pixels"):
        compared(*paths[1:])


def test_products_that_overflow_are_said_of_their_file(tmp_path, monkeypatch):
    one, (weights, config) = network(0), network(1)
    large = {name: values.float() * 1e30 for name, values in weights.items()}
    large["model.embed_tokens.weight"] = (
        weights["model.embed_tokens.weight"].bfloat16() * 1e30)
    paths = [save(tmp_path / "a", *one), save(tmp_path / "b", large, config)]
    with pytest.raises(ValueError, match=f"^{paths[1]}: llama: .* too large"):
        compared(*paths)


def test_one_layer_is_counted_as_one(tmp_path):
    paths = [save(tmp_path / name, *network(seed, depth=1))
             for seed, name in enumerate("ab")]
    text = report.described(compared(*paths))
    assert "read as llama: 1 layer of width" in text
    assert "on average over 1 layer (" in text


def test_circuits_without_a_value_are_not_called_the_same_weights(tmp_path):
    zero, config = network(0)
    for layer in range(2):
        zero[f"model.layers.{layer}.mlp.down_proj.weight"].zero_()
    paths = [save(tmp_path / "a", *network(0)), save(tmp_path / "b", zero, config)]
    first = report.described(compared(*paths)).splitlines()[0]
    assert "the same in all circuits but those left out" in first
    assert "same weights" not in first


def test_a_network_left_out_does_not_hide_the_strangers_of_the_book(tmp_path, capsys):
    folder, weights, config = folder_of(tmp_path, 3)
    zero = {name: torch.zeros_like(values) for name, values in weights.items()}
    save(folder / "zero", zero, config)
    assert main(["family", str(folder)]) == 0
    assert "strangers of the book" in capsys.readouterr().out
    assert main(["compare", str(folder / "0"), str(folder / "zero")]) == 0
    assert "median" not in capsys.readouterr().out.splitlines()[0]
