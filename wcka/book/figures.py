"""One look for all figures: colours by meaning, type as large as the page's, enhanced box plots."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib_inline.backend_inline import set_matplotlib_formats

from ..measures.all_pairs import MEASURE_LABELS
from ..measures.spelling import nearest

# Okabe and Ito's colours, safe for colour-blind readers; wCKA stands out, the others are quiet.
MEASURE_COLORS = {"procrustes": "#999999", "cka": "#56B4E9", "dcka": "#0072B2", "wcka": "#D55E00"}
ENSEMBLE_COLORS = {"random": "#009E73", "adjacent": "#CC79A7"}
PROBE_COLORS = {"clean": "#000000", "corrupted": "#E69F00", "attacked": "#009E73"}
QUIET = "#666666"  # marks that are no measure
WIDTH = 7.4  # inches: the text of a page at its usual width


def style() -> None:
    """Set the style of all figures; they are vector graphics, but within ``many_marks``."""
    matplotlib.rcdefaults()  # whatever the user's own matplotlibrc says
    set_matplotlib_formats("svg")
    sns.set_theme(context="notebook", style="ticks", font_scale=0.95, rc={
        "axes.spines.right": False, "axes.spines.top": False, "axes.titlesize": "medium",
        "figure.facecolor": "white", "figure.dpi": 100, "figure.constrained_layout.use": True,
        "legend.frameon": False, "svg.fonttype": "path", "svg.hashsalt": "wcka"})


@contextlib.contextmanager
def many_marks() -> Iterator[None]:
    """Show figures within as 2x PNG, where marks are too many for a vector graphic."""
    set_matplotlib_formats("retina")
    yield
    set_matplotlib_formats("svg")


def boxen(axes: Axes, table: pd.DataFrame, **kw) -> Axes:
    """Enhanced box plot of similarities (seaborn's boxenplot), one look for all."""
    return sns.boxenplot(table, ax=axes, linewidth=0.5, flier_kws={"s": 4, "alpha": 0.4},
                         line_kws={"linewidth": 1.2, "color": "black"}, **kw)


def thumbnail(axes: Axes, image, y: float) -> None:
    """Put a small grey image left of the axes, at height `y` of its data."""
    box = OffsetImage(image, zoom=0.75, cmap="gray_r")
    axes.add_artist(AnnotationBbox(box, (-0.06, y), xycoords=("axes fraction", "data"),
                                   box_alignment=(1, 0.5), frameon=False, pad=0,
                                   annotation_clip=False))


def heat_map(axes: Axes, values: pd.DataFrame, text: pd.DataFrame | None = None, **kw) -> Axes:
    """Heat map with its numbers written in the cells; rows and columns named by the table."""
    figure = cast(Figure, axes.figure)
    engine = figure.get_layout_engine()
    figure.set_layout_engine("none")  # seaborn draws the figure to look at its labels
    sns.heatmap(values, ax=axes, annot=values if text is None else text,
                fmt=".2f" if text is None else "", linewidths=1.5, annot_kws={"size": 9}, **kw)
    figure.set_layout_engine(engine)
    axes.set(xlabel="", ylabel="")
    axes.tick_params(length=0)
    axes.set_yticklabels(axes.get_yticklabels(), rotation=0)
    return axes


def mark(p: float, difference: float) -> str:
    """Significance of a difference in stars, with its sign; "n.s." from p = 0.05 up."""
    stars = sum(p < level for level in (0.05, 0.01, 0.001))
    return f"{'+' if difference > 0 else '−'}{'*' * stars}" if stars else "n.s."


def scatter(axes: Axes, table: pd.DataFrame, measure: str, size: float = 1.5) -> None:
    """Similarity by one measure against agreement, a dot a pair and probe, coloured by kind."""
    order = np.random.default_rng(0).permutation(len(table))  # no kind on top of another
    axes.scatter(table[measure].iloc[order], table.agreement.iloc[order], s=size, lw=0, alpha=0.4,
                 c=table.kind.map(PROBE_COLORS).iloc[order], rasterized=True)


def correlations(axes: Axes, results: pd.DataFrame, ceiling: float | None = None) -> None:
    """Correlations of measures with agreement, with both intervals and both tests.

    Parameters
    ----------
    axes : Axes
    results : DataFrame
        As ``statistics.compare_measures`` returns it.
    ceiling : float, optional
        A dotted line: what no measure can pass.
    """
    axes.axhline(0, lw=0.6, color=QUIET)
    for i, (measure, row) in enumerate(results.iterrows()):
        color = MEASURE_COLORS.get(measure.split(",")[0], QUIET)
        axes.plot([i, i], row[["model low", "model high"]], color=color, lw=1.6)
        axes.plot([i, i], row[["low", "high"]], color=color, lw=11, solid_capstyle="butt")
        axes.plot(i, row.r, "o", color="white", ms=2.5, zorder=3)
        for height, p in ((1.13, "p Fisher"), (1.02, "p model")):
            if np.isfinite(row[p]):
                axes.text(i, height, mark(row[p], row.difference), ha="center", fontsize=8,
                          transform=axes.get_xaxis_transform())
    if ceiling is not None:
        axes.axhline(ceiling, ls=":", lw=1.2, color=QUIET)
    axes.set(xticks=range(len(results)), xlim=(-0.6, len(results) - 0.4))
    axes.set_xticklabels([MEASURE_LABELS.get(m.split(",")[0], m) for m in results.index], rotation=45,
                         ha="right", rotation_mode="anchor")


def benchmark(table: pd.DataFrame, results: dict[str, pd.DataFrame], ceilings: pd.Series,
              shown: str = "wcka") -> Figure:
    """Figure of the functional benchmark: scatter, Pearson's r, Spearman's rho; a column a factor.

    Parameters
    ----------
    table : DataFrame
        Columns differs, kind, agreement and `shown`.
    results : dict of str to DataFrame
        Under "pearson" and "spearman" what ``statistics.compare_measures`` gives, indexed by what
        differs and measure.
    ceilings : Series
        Highest possible Pearson's r of each column.
    shown : str
        The measure of the scatter.
    """
    factors = list(ceilings.index)
    fig, axes = plt.subplots(3, len(factors), figsize=(WIDTH, 7.6), sharex="row", sharey="row",
                             gridspec_kw={"height_ratios": [1, 1.1, 1.1]})
    for column, factor in zip(axes.T, factors):
        scatter(column[0], table[table.differs == factor], shown)
        column[0].set(title=factor, xlabel=MEASURE_LABELS[shown])
        correlations(column[1], results["pearson"].loc[factor], ceilings[factor])
        correlations(column[2], results["spearman"].loc[factor])
        column[1].set_xticklabels([])
    present = [kind for kind in PROBE_COLORS if (table.kind == kind).any()]
    for i, kind in enumerate(present):
        axes[0, 0].text(0.04, 0.06 + 0.13 * i, kind, color=PROBE_COLORS[kind], fontsize=9,
                        transform=axes[0, 0].transAxes)
    for row, label in zip(axes[:, 0], ("agreement", "Pearson's r", "Spearman's ρ")):
        row.set_ylabel(label)
    for row in axes[1:, 0]:
        name_marks(row)
    return fig


def by_kind(results: dict[str, pd.DataFrame]) -> Figure:
    """Heat maps of r on each kind of probe, as ``statistics.r_by_factor`` gives it."""
    shown = [kind for kind in PROBE_COLORS if kind in results]
    fig, panels = plt.subplots(1, len(shown), figsize=(WIDTH, 2.6), squeeze=False)
    for axes, kind in zip(panels[0], shown):
        heat_map(axes, results[kind].rename(MEASURE_LABELS), cmap="cividis", vmin=0, vmax=1, cbar=False,
                 yticklabels=kind == shown[0])
        axes.set_title(kind)
        axes.tick_params(axis="x", rotation=35)
    return fig


def agreement(table: pd.DataFrame) -> Figure:
    """Heat map of the mean agreement of a table of ``benchmark.grid``: probes by factors."""
    mean = table.pivot_table(index="probe", columns="differs", values="agreement", sort=False)
    fig, axes = plt.subplots(figsize=(WIDTH * 0.75, 0.3 * len(mean) + 0.6))
    heat_map(axes, mean, cmap="cividis", vmin=mean.min().min(), vmax=1, cbar=False)
    axes.set_yticklabels([name.replace("_", " ") for name in mean.index])
    axes.xaxis.tick_top()
    return fig


def readings(results: pd.DataFrame) -> Figure:
    """``correlations`` of each factor in a panel of its own."""
    factors = results.index.unique("differs")
    fig, panels = plt.subplots(2, 2, figsize=(WIDTH, 6.2), sharex=True, sharey=True)
    for factor, axes in zip(factors, panels.flat):
        correlations(axes, results.loc[factor])
        axes.text(0.5, 1.22, factor, ha="center", transform=axes.transAxes)
    for axes in panels[:, 0]:
        axes.set_ylabel("Pearson's r")
        name_marks(axes)
    return fig


def scatters(table: pd.DataFrame, measures: Sequence[str]) -> Figure:
    """Similarity against agreement: a row a measure, a column a factor."""
    factors = table.differs.unique()
    fig, grid = plt.subplots(len(measures), len(factors), figsize=(WIDTH, 2 * len(measures)),
                             sharex=True, sharey=True)
    for measure, row in zip(measures, grid):
        row[0].set_ylabel(f"agreement\n({MEASURE_LABELS[measure]})")
        for factor, axes in zip(factors, row):
            scatter(axes, table[table.differs == factor], measure)
    for factor, top, bottom in zip(factors, grid[0], grid[-1]):
        top.set_title(factor)
        bottom.set_xlabel("similarity")
    return fig


def layers(maps: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Heat maps of what ``benchmark.by_layer`` gives, means: a row a measure."""
    fig, panels = plt.subplots(len(maps), len(next(iter(maps.values()))), squeeze=False,
                               figsize=(WIDTH, 2.5 * len(maps)))
    for (measure, row), line in zip(maps.items(), panels):
        for axes, (title, values) in zip(line, row.items()):
            place, numbers = axes.get_subplotspec(), range(1, values.shape[1] + 1)
            heat_map(axes, pd.DataFrame(values.mean(0), numbers, numbers), cmap="cividis", vmin=0,
                     vmax=1, cbar=False, xticklabels=place.is_last_row(),
                     yticklabels=place.is_first_col())
            if place.is_first_row():
                axes.set_title(title)
        line[0].set_ylabel(f"layer ({MEASURE_LABELS[measure]})")
    for axes in panels[-1]:
        axes.set_xlabel("layer")
    return fig


def name_marks(axes: Axes) -> None:
    """Say left of ``correlations`` what its two lines of marks are."""
    for height, words in ((1.13, "as in the paper"), (1.02, "over starts")):
        axes.text(-0.08, height, words, ha="right", fontsize=8, color=QUIET,
                  transform=axes.transAxes)


def check_image(path: Path) -> None:
    """Refuse a file that no image can be written to.

    Raises
    ------
    ValueError
        For an ending that Matplotlib does not know, and a folder that cannot be written to.
    """
    known = plt.gcf().canvas.get_supported_filetypes()
    plt.close()
    nearest(path.suffix.lower().lstrip("."), known, f"kind of image for {path}")
    if not os.access(path.absolute().parent, os.W_OK):
        raise ValueError(f"--matrix {path}: no such folder, or not to be written to")


def draw_similarities(values: Sequence, names: Sequence[str], path: Path) -> None:
    """Write a heat map of the similarities of all pairs to an image file.

    Parameters
    ----------
    values : (N, N)
        Similarities.
    names : sequence of N str
        Names of the rows and columns.
    path : Path
        The image.
    """
    style()
    table = pd.DataFrame(values, names, names)
    fig, axes = plt.subplots(figsize=(2.5 + 0.6 * len(names), 1.5 + 0.6 * len(names)))
    heat_map(axes, table, cmap="cividis", vmin=0, vmax=1, cbar=False)
    axes.tick_params(axis="x", rotation=35)
    axes.set_title("wCKA")
    fig.savefig(path, dpi=200)
    plt.close(fig)
