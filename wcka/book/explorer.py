"""The interactive figure: similarity and agreement of two seeds, by shape and epoch.

The networks are those of chapter 3's grid that were trained on clean images; the shapes
that it leaves out are trained in the same way, so that each slider can take each value.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib import colormaps

from ..experiments import benchmark
from ..networks.attacks import BY_GRADIENT
from ..networks.probes import expand_probes
from . import figures

_NAMES = {
    "wcka": "wCKA",
    "clean": "agreement, clean images",
    "corrupted": "agreement, corrupted images",
}


def shapes(architectures: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return each depth with each width of networks whose hidden layers are equal.

    Parameters
    ----------
    architectures : sequence of sequence of int
        Widths of the hidden layers. Those that are not all equal are left out.

    Examples
    --------
    >>> shapes([[8], [16, 16], [4, 8]])
    [(1, 8), (1, 16), (2, 8), (2, 16)]
    """
    depths = set()
    widths = set()
    for hidden in architectures:
        if len(set(hidden)) == 1:
            depths.add(len(hidden))
            widths.add(hidden[0])
    return list(itertools.product(sorted(depths), sorted(widths)))


def compute(values: Mapping[str, Any]) -> pd.DataFrame:
    """Train networks of all shapes, and compare the seeds of each.

    Results are cached on disk.

    Parameters
    ----------
    values : mapping
        The parameters of chapter 3.

    Returns
    -------
    DataFrame
        One row per depth, width and epoch: means over pairs of seeds of wcka and of the
        agreement on images that are clean and, where there are any, corrupted; and
        pairs, their number.

    Examples
    --------
    >>> values = {"dataset": "mnist", "classes": [0, 1], "architectures": [[4]],
    ...           "seeds": 2, "seed": 0, "epochs": 1, "checkpoints": [1],
    ...           "batch_size": 512, "train_eps": 0.1, "train_steps": 1, "eps": 0.1,
    ...           "attack_steps": 1, "noise": 0.1, "probes": ["clean", "fog"],
    ...           "device": "cpu"}
    >>> compute(values)[["depth", "width", "epoch", "pairs"]].values.tolist()
    [[1, 4, 1, 1]]
    """
    models = _models(values)
    probing = {
        "dataset": values["dataset"],
        "classes": values["classes"],
        "seed": values["seed"],
        "eps": values["eps"],
        "steps": values["attack_steps"],
        "noise": values["noise"],
        "images": None,
        "attacked": None,
    }
    table = benchmark.chain_similarities(models)[["differs", "a", "b", "wcka"]]
    table["clean"] = benchmark.agreement_on(models, "clean", probing).agreement
    corrupted = []
    for probe in expand_probes(values["probes"]):
        if probe not in ("clean", "gaussian_noise", *BY_GRADIENT):
            rows = benchmark.agreement_on(models, probe, probing)
            corrupted.append(rows.agreement)
    if corrupted:
        table["corrupted"] = sum(corrupted) / len(corrupted)
    _, members = benchmark.grid_networks(models)
    shape_of_group = pd.DataFrame(
        shapes(values["architectures"]), columns=["depth", "width"])
    table = table[table.differs == "seed"]
    first = members.loc[table.a]  # the second differs from it in the seed alone
    shape = shape_of_group.loc[first.group]
    table = table.assign(
        depth=shape.depth.to_numpy(), width=shape.width.to_numpy(),
        epoch=first.epoch.to_numpy())
    by_shape = table.groupby(["depth", "width", "epoch"])
    columns = [name for name in _NAMES if name in table]
    means = by_shape[columns].mean()
    return means.assign(pairs=by_shape.size()).reset_index()


def _models(values: Mapping[str, Any]) -> list[dict]:
    """Return the arguments of ``trained`` for each shape, as chapter 3 has them."""
    models = []
    for depth, width in shapes(values["architectures"]):
        models.append({
            "architecture": {
                "factory": "mlp",
                "widths": [784, *[width] * depth, len(values["classes"])],
                "activation": "relu",
            },
            "strategy": "standard",
            "seeds": list(range(values["seed"], values["seed"] + values["seeds"])),
            "dataset": values["dataset"],
            "classes": values["classes"],
            "epochs": values["epochs"],
            "checkpoints": sorted(values["checkpoints"]),
            "batch_size": values["batch_size"],
            "eps": values["train_eps"],
            "attack_steps": values["train_steps"],
            "seed": values["seed"],
            "device": values["device"],
        })
    return models


def as_json(table: pd.DataFrame) -> str:
    """Return the table as JSON, with the values that each slider can take.

    Examples
    --------
    >>> table = pd.DataFrame({"depth": [1], "width": 8, "epoch": 2, "wcka": 0.5})
    >>> as_json(table)
    '{"depth": [1], "width": [8], "epoch": [2], "names": {"wcka": "wCKA"}, "rows": ...'
    """
    content: dict[str, Any] = {}
    for name in ("depth", "width", "epoch"):
        content[name] = sorted(int(value) for value in table[name].unique())
    content["names"] = {name: of for name, of in _NAMES.items() if name in table}
    content["rows"] = table.round(4).to_dict("records")
    return json.dumps(content)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw the static figure: similarity and agreement against the epoch.

    Parameters
    ----------
    table : DataFrame
        As from ``compute``.
    path : Path
        The svg.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> table = pd.DataFrame({"depth": [1, 1], "width": 8, "epoch": [1, 2],
    ...                       "wcka": [0.4, 0.5], "clean": 0.9})
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "explorer.svg")
    ...     draw(table, path)
    ...     path.exists()
    True
    """
    figures.style()
    names = [name for name in _NAMES if name in table]
    depths = sorted(table.depth.unique())
    widths = sorted(table.width.unique())
    fig, panels = plt.subplots(
        len(names), len(depths), squeeze=False, sharex=True, sharey="row",
        figsize=(figures.WIDTH, 1.9 * len(names) + 0.5))
    for row, name in zip(panels, names):
        for axes, depth in zip(row, depths):
            for i, width in enumerate(widths):
                line = table[(table.depth == depth) & (table.width == width)]
                shade = colormaps["cividis"](0.85 * i / max(1, len(widths) - 1))
                axes.plot(line.epoch, line[name], "o-", ms=4, color=shade,
                          label=f"width {width}")
        row[0].set_ylabel(_NAMES[name].replace(", ", ",\n"))
    for axes, depth in zip(panels[0], depths):
        axes.set_title("1 hidden layer" if depth == 1 else f"{depth} hidden layers")
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
        axes.set_xticks(sorted(table.epoch.unique()))
    panels[0, -1].legend(fontsize=9)
    fig.savefig(path, metadata={"Date": None})
    plt.close(fig)


def widget(table: pd.DataFrame, template: str) -> str:
    """Return the interactive figure as a block of html in MyST.

    Parameters
    ----------
    table : DataFrame
        As from ``compute``.
    template : str
        Html, in which the word DATA stands where the numbers belong.

    Examples
    --------
    >>> table = pd.DataFrame({"depth": [1], "width": 8, "epoch": 2, "wcka": 0.5})
    >>> print(widget(table, "<b>DATA</b>"))
    ````{raw} html
    <b>{"depth": [1], ...}</b>
    ````
    """
    html = template.strip().replace("DATA", as_json(table))
    return f"````{{raw}} html\n{html}\n````"
