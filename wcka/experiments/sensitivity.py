"""The functional benchmark with one choice changed at a time."""

from collections.abc import Sequence

import pandas as pd

from ..measures.all_pairs import ACTIVATION_MEASURES, NO_PSD, PAPER_MEASURES, UNCENTRED
from .benchmark import LAYERS, chain_similarities, similarity_on
from .jobs import run_jobs
from .statistics import demeaned, r_by_factor

_SAME = {m: m for m in PAPER_MEASURES}
_SEEN = {m: f"{m}, on the probe" for m in ACTIVATION_MEASURES}


def variants(models: Sequence[dict], members: pd.DataFrame, table: pd.DataFrame, layer: str,
             samples: int, probing: dict, learned: float) -> pd.DataFrame:
    """Pearson's r of each measure with agreement, one choice changed at a time.

    Parameters
    ----------
    models, layer, samples, probing
        As given to ``benchmark.grid``.
    members, table
        As it returned them, with the rows of collapsed networks.
    learned : float
        Clean accuracy from which a network counts as having learned.

    Returns
    -------
    DataFrame
        A row a choice and measure, a column a factor; NaN where no pair is left.
    """
    wide = _wide(models, members, table, layer, samples, probing)
    few, about = f"{samples} images", members.set_index("model")
    low, early = (sum(wide[side].map(test).astype(bool) for side in ("a", "b")) > 0 for test in (
        about.accuracy < learned, about.epoch < members.epoch.max()))
    alive, apart = ~wide.collapsed, ["differs", "probe"]
    kept, columns = wide[alive], [*PAPER_MEASURES, "agreement"]
    rows: dict[str, tuple] = {
        "as above": (kept, _SAME),
        "collapsed networks too": (wide, _SAME),
        "only networks that have learned": (wide[alive & ~low], _SAME),
        "last epoch only": (wide[alive & ~early], _SAME),
        "each probe's mean taken away": (demeaned(kept, columns, apart), _SAME),
        "each kind of pair's mean taken away": (
            demeaned(kept, columns, [*apart, "kind of pair"]), _SAME),
        "each under its own attack": (kept, _SAME, "agreement, own attack"),
        f"on the probe, {few}": (kept, _SEEN),
        f"on the probe, {few}, each under its own attack": (kept, _SEEN, "agreement, own attack"),
        f"clean, {few}": (kept, {m: f"{m} @ clean" for m in _SEEN}),
        **{f"{name}, {few}": (kept, {m: f"{m} @ {name}" for m in _SEEN})
           for name in LAYERS if name != layer},
        f"no PSD step, {few}": (kept, {"dcka": NO_PSD}),
        f"uncentred, {few}": (kept, dict(zip(ACTIVATION_MEASURES, UNCENTRED[:2]))),
        f"trunk's features taken away, {few}": (kept, {"dcka": "dcka, features"}),
        **{name: (kept, {"wcka": f"wcka, {name}"})
           for name in ("through the trunk", "uncentred", "with biases", "rows normalised",
                        "mean of layers")}}
    return pd.concat({name: r_by_factor(*row) for name, row in rows.items()
                      if set(row[1].values()) <= set(wide)})


def _wide(models, members, table, layer, samples, probing) -> pd.DataFrame:
    """The table with a column more for each similarity that a variant needs."""
    common = {"models": models, "probe_name": "clean", "samples": samples, "probing": probing}
    asked = [({"layer": name}, {m: f"{m} @ {name}" for m in _SEEN}) for name in LAYERS
             if name != layer]
    asked.append(({"layer": layer}, {m: m for m in (NO_PSD, *UNCENTRED[:2])}))
    if models[0].get("trunk"):
        asked.append(({"layer": layer, "deconfounded": "features"}, {"dcka": "dcka, features"}))
    seen = run_jobs(similarity_on, [{**common, **given, "measures": list(names)}
                               for given, names in asked], description="variants")
    more = chain_similarities(models).drop(columns=["differs", "wcka"])
    for i, (_, names) in enumerate(asked):
        part = seen.iloc[i * len(more):(i + 1) * len(more)]
        more = more.assign(**{new: part[m].to_numpy() for m, new in names.items()})
    for side in ("a", "b"):
        more[side] = members.model.to_numpy()[more[side]]
    wide = table.astype({"a": str, "b": str}).merge(more, on=["a", "b"])
    clean = wide[wide["probe"] == "clean"].set_index(["a", "b"])[list(_SEEN.values())]
    clean.columns = [f"{m} @ clean" for m in _SEEN]
    kinds = members.set_index("model")
    kinds = kinds.architecture + kinds.strategy + kinds.epoch.astype(str)
    return wide.join(clean, on=["a", "b"]).assign(
        **{"kind of pair": wide.a.map(kinds) + wide.b.map(kinds)})
