"""One look for all figures: colours by meaning, and type as large as the page's."""

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
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib_inline.backend_inline import set_matplotlib_formats
from pandas.io.formats.style import Styler

from ..measures.all_pairs import MEASURE_LABELS
from ..measures.spelling import nearest

# Okabe and Ito's colours, safe for colour-blind readers; wCKA stands out.
MEASURE_COLORS = {
    "procrustes": "#999999",
    "cka": "#56B4E9",
    "dcka": "#0072B2",
    "wcka": "#D55E00",
}
ENSEMBLE_COLORS = {"random": "#009E73", "adjacent": "#CC79A7"}
PROBE_COLORS = {"clean": "#000000", "corrupted": "#E69F00", "attacked": "#009E73"}
QUIET = "#666666"  # marks that are no measure
WIDTH = 7.4  # inches: the text of a page at its usual width


# ------------------------------------------------------------------- the look


def style() -> None:
    """Set the style of all figures, which are vector graphics but in ``many_marks``.

    Examples
    --------
    >>> style()
    >>> plt.rcParams["figure.dpi"]
    100.0
    """
    matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
    set_matplotlib_formats("svg")
    sns.set_theme(context="notebook", style="ticks", font_scale=0.95, rc={
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": "medium",
        "figure.facecolor": "white",
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "legend.frameon": False,
        "svg.fonttype": "path",
        "svg.hashsalt": "wcka",
    })


@contextlib.contextmanager
def many_marks() -> Iterator[None]:
    """Show figures as 2x PNG, where marks are too many for a vector graphic.

    Examples
    --------
    >>> with many_marks():
    ...     plt.close()
    """
    set_matplotlib_formats("retina")
    yield
    set_matplotlib_formats("svg")


# ------------------------------------------------------------------- the parts


def boxen(axes: Axes, table: pd.DataFrame, **kw) -> Axes:
    """Draw enhanced box plots of similarities; see seaborn's boxenplot.

    Parameters
    ----------
    axes : Axes
    table : DataFrame
        One row per similarity.
    **kw
        As for boxenplot: x, y, hue, order and the like.

    Examples
    --------
    >>> fig, axes = plt.subplots()
    >>> table = pd.DataFrame({"measure": "wCKA", "similarity": [0.1, 0.2, 0.3]})
    >>> boxen(axes, table, x="measure", y="similarity").get_ylabel()
    'similarity'
    >>> plt.close(fig)
    """
    return sns.boxenplot(
        table, ax=axes, linewidth=0.5, flier_kws={"s": 4, "alpha": 0.4},
        line_kws={"linewidth": 1.2, "color": "black"}, **kw,
    )


def thumbnail(axes: Axes, image, y: float) -> None:
    """Put a small grey image to the left of the axes.

    Parameters
    ----------
    axes : Axes
    image : (h, w)
        Large values are dark.
    y : float
        Its height, in the coordinates of the data.

    Examples
    --------
    >>> fig, axes = plt.subplots()
    >>> thumbnail(axes, np.eye(28), y=0.5)
    >>> len(axes.artists)
    1
    >>> plt.close(fig)
    """
    box = OffsetImage(image, zoom=0.75, cmap="gray_r")
    axes.add_artist(AnnotationBbox(
        box, (-0.06, y), xycoords=("axes fraction", "data"), box_alignment=(1, 0.5),
        frameon=False, pad=0, annotation_clip=False,
    ))


def heat_map(
    axes: Axes, values: pd.DataFrame, text: pd.DataFrame | None = None, **kw
) -> Axes:
    """Draw a heat map with numbers in its cells, and names from the table.

    Parameters
    ----------
    axes : Axes
    values : DataFrame
        Colours of the cells.
    text : DataFrame, optional
        Text of the cells; by default, the values with two digits.
    **kw
        As for seaborn's heatmap.

    Examples
    --------
    >>> fig, axes = plt.subplots()
    >>> values = pd.DataFrame([[0.123, 1.0]], ["wCKA"], ["seed", "epoch"])
    >>> [text.get_text() for text in heat_map(axes, values).texts]
    ['0.12', '1.00']
    >>> plt.close(fig)
    """
    figure = cast(Figure, axes.figure)
    engine = figure.get_layout_engine()
    figure.set_layout_engine("none")  # seaborn draws the figure to look at its labels
    sns.heatmap(
        values, ax=axes, annot=values if text is None else text,
        fmt=".2f" if text is None else "", linewidths=1.5, annot_kws={"size": 9}, **kw,
    )
    figure.set_layout_engine(engine)
    axes.set(xlabel="", ylabel="")
    axes.tick_params(length=0)
    axes.set_yticklabels(axes.get_yticklabels(), rotation=0)
    return axes


def mark(p: float, difference: float) -> str:
    """Return the significance of a difference in stars, with its sign.

    Parameters
    ----------
    p : float
        One star below 0.05, two below 0.01, three below 0.001; otherwise "n.s.".
    difference : float
        Its sign comes before the stars.

    Examples
    --------
    >>> mark(0.004, 0.1), mark(0.04, -0.1), mark(0.4, 0.1)
    ('+**', '−*', 'n.s.')
    """
    stars = sum(p < level for level in (0.05, 0.01, 0.001))
    if not stars:
        return "n.s."
    sign = "+" if difference > 0 else "−"
    return sign + "*" * stars


def scatter(axes: Axes, table: pd.DataFrame, measure: str, size: float = 1.5) -> None:
    """Plot similarity against agreement, one dot per pair and probe.

    Parameters
    ----------
    axes : Axes
    table : DataFrame
        Columns kind (of the probe, which gives the colour), agreement and `measure`.
    measure : str
        The column on the horizontal axis.
    size : float
        Of a dot, in square points.

    Examples
    --------
    >>> fig, axes = plt.subplots()
    >>> table = pd.DataFrame({"kind": ["clean", "attacked"], "agreement": 1.0,
    ...                       "wcka": 0.5})
    >>> scatter(axes, table, "wcka")
    >>> axes.collections[0].get_offsets().tolist()
    [[0.5, 1.0], [0.5, 1.0]]
    >>> plt.close(fig)
    """
    # In random order, so that no kind of probe lies on top of the other ones.
    order = np.random.default_rng(0).permutation(len(table))
    axes.scatter(
        table[measure].iloc[order], table.agreement.iloc[order], s=size, lw=0,
        alpha=0.4, c=table.kind.map(PROBE_COLORS).iloc[order], rasterized=True,
    )


def correlations(
    axes: Axes, results: pd.DataFrame, ceiling: float | None = None
) -> None:
    """Plot correlations of measures with agreement, with two intervals and two tests.

    The broad bar is the interval for independent pairs, as in the paper; the thin line
    is the interval over runs and probes; the white dot is r. Above it are the
    significance by the paper's test and, below that, over runs and probes; see
    ``name_marks``.

    Parameters
    ----------
    axes : Axes
    results : DataFrame
        One row per measure, as ``statistics.compare_measures`` returns it.
    ceiling : float, optional
        Height of a dotted line: the highest r that a measure can have.

    Examples
    --------
    >>> fig, axes = plt.subplots()
    >>> rows = pd.DataFrame({
    ...     "r": 0.5, "low": 0.4, "high": 0.6, "model low": 0.3, "model high": 0.7,
    ...     "difference": 0.2, "p Fisher": 0.001, "p model": 0.03}, ["cka"])
    >>> correlations(axes, rows)
    >>> [text.get_text() for text in axes.texts]
    ['+**', '+*']
    >>> plt.close(fig)
    """
    axes.axhline(0, lw=0.6, color=QUIET)
    labels = []
    for i, (measure, row) in enumerate(results.iterrows()):
        # A variant such as "wcka, through the trunk" has the look of its measure.
        name = measure.split(",")[0]
        labels.append(MEASURE_LABELS.get(name, measure))
        color = MEASURE_COLORS.get(name, QUIET)
        axes.plot([i, i], row[["model low", "model high"]], color=color, lw=1.6)
        axes.plot([i, i], row[["low", "high"]], color=color, lw=11,
                  solid_capstyle="butt")
        axes.plot(i, row.r, "o", color="white", ms=2.5, zorder=3)
        for test, height in _MARK_HEIGHTS.items():
            if np.isfinite(row[test]):  # the reference has no difference to test
                axes.text(i, height, mark(row[test], row.difference), ha="center",
                          fontsize=8, transform=axes.get_xaxis_transform())
    if ceiling is not None:
        axes.axhline(ceiling, ls=":", lw=1.2, color=QUIET)
    axes.set(xticks=range(len(results)), xlim=(-0.6, len(results) - 0.4))
    axes.set_xticklabels(labels, rotation=45, ha="right", rotation_mode="anchor")


# Heights of the marks, as shares of the axes' height
_MARK_HEIGHTS = {"p Fisher": 1.13, "p model": 1.02}


def name_marks(axes: Axes) -> None:
    """Name the two lines of marks of ``correlations``, to the left of them.

    Examples
    --------
    >>> fig, axes = plt.subplots()
    >>> name_marks(axes)
    >>> [text.get_text() for text in axes.texts]
    ['as in the paper', 'runs and probes']
    >>> plt.close(fig)
    """
    names = {"p Fisher": "as in the paper", "p model": "runs and probes"}
    for test, words in names.items():
        axes.text(-0.08, _MARK_HEIGHTS[test], words, ha="right", fontsize=8,
                  color=QUIET, transform=axes.transAxes)


# ------------------------------------------------------------------- the figures


def benchmark(
    table: pd.DataFrame, results: dict[str, pd.DataFrame], ceilings: pd.Series,
) -> Figure:
    """Draw the functional benchmark, one column per factor.

    The rows are a scatter of wCKA against agreement, Pearson's r of all
    measures, and Spearman's rho of all measures (the paper's figures 3 and 4).

    Parameters
    ----------
    table : DataFrame
        Columns differs, kind, agreement and wcka.
    results : dict of str to DataFrame
        Comparisons under "pearson" and "spearman", as ``statistics.compare_by_factor``
        returns them.
    ceilings : Series
        Highest possible Pearson's r, by factor. Its order is that of the columns.

    Examples
    --------
    >>> fig = benchmark(table, results, ceilings(table))  # doctest: +SKIP
    """
    factors = list(ceilings.index)
    fig, axes = plt.subplots(
        3, len(factors), figsize=(WIDTH, 7.6), sharex="row", sharey="row",
        gridspec_kw={"height_ratios": [1, 1.1, 1.1]},
    )
    for column, factor in zip(axes.T, factors):
        scatter(column[0], table[table.differs == factor], "wcka")
        column[0].set(title=factor, xlabel=MEASURE_LABELS["wcka"])
        correlations(column[1], results["pearson"].loc[factor], ceilings[factor])
        correlations(column[2], results["spearman"].loc[factor])
        column[1].set_xticklabels([])
    present = [kind for kind in PROBE_COLORS if (table.kind == kind).any()]
    corner = axes[0, 0]
    for i, kind in enumerate(present):  # a legend in the colours of the dots
        corner.text(0.04, 0.06 + 0.13 * i, kind, color=PROBE_COLORS[kind], fontsize=9,
                    transform=corner.transAxes)
    for panel, label in zip(axes[:, 0], ("agreement", "Pearson's r", "Spearman's ρ")):
        panel.set_ylabel(label)
    for panel in axes[1:, 0]:
        name_marks(panel)
    return fig


def by_kind(results: dict[str, pd.DataFrame]) -> Figure:
    """Draw heat maps of r, one per kind of probe.

    Parameters
    ----------
    results : dict of str to DataFrame
        Pearson's r of measures by factors, as ``statistics.r_by_factor`` returns it.

    Examples
    --------
    >>> r = pd.DataFrame({"seed": [0.5]}, ["wcka"])
    >>> fig = by_kind({"attacked": r, "clean": r})
    >>> [axes.get_title() for axes in fig.axes]
    ['clean', 'attacked']
    >>> plt.close(fig)
    """
    kinds = [kind for kind in PROBE_COLORS if kind in results]
    fig, panels = plt.subplots(1, len(kinds), figsize=(WIDTH, 2.6), squeeze=False)
    for axes, kind in zip(panels[0], kinds):
        heat_map(axes, results[kind].rename(MEASURE_LABELS), cmap="cividis", vmin=0,
                 vmax=1, cbar=False, yticklabels=kind == kinds[0])
        axes.set_title(kind)
        axes.tick_params(axis="x", rotation=35)
    return fig


def agreement(table: pd.DataFrame) -> Figure:
    """Draw a heat map of the mean agreement, probes by factors.

    Parameters
    ----------
    table : DataFrame
        Columns probe, differs and agreement, as ``benchmark.grid`` returns them.

    Examples
    --------
    >>> table = pd.DataFrame({"probe": ["fog", "gaussian_noise"], "differs": "seed",
    ...                       "agreement": [0.9, 0.8]})
    >>> fig = agreement(table)
    >>> [label.get_text() for label in fig.axes[0].get_yticklabels()]
    ['fog', 'gaussian noise']
    >>> plt.close(fig)
    """
    mean = table.pivot_table(
        index="probe", columns="differs", values="agreement", sort=False
    )
    fig, axes = plt.subplots(figsize=(WIDTH * 0.75, 0.3 * len(mean) + 0.6))
    heat_map(axes, mean, cmap="cividis", vmin=mean.min().min(), vmax=1, cbar=False)
    axes.set_yticklabels([name.replace("_", " ") for name in mean.index])
    axes.xaxis.tick_top()
    return fig


def readings(results: pd.DataFrame) -> Figure:
    """Plot ``correlations`` of the factors, at most four, in panels of their own.

    Parameters
    ----------
    results : DataFrame
        Comparisons by factor and measure, as ``statistics.compare_by_factor`` returns
        them.

    Examples
    --------
    >>> fig = readings(compare_by_factor(table, measures))  # doctest: +SKIP
    """
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
    """Plot similarity against agreement, measures (rows) by factors (columns).

    Parameters
    ----------
    table : DataFrame
        Columns differs, kind, agreement and `measures`.
    measures : sequence of str
        At least two.

    Examples
    --------
    >>> table = pd.DataFrame({"differs": ["seed", "epoch"], "kind": "clean",
    ...                       "agreement": 0.9, "cka": 0.5, "wcka": 0.4})
    >>> fig = scatters(table, ["cka", "wcka"])
    >>> [axes.get_title() for axes in fig.axes]
    ['seed', 'epoch', '', '']
    >>> plt.close(fig)
    """
    factors = table.differs.unique()
    fig, grid = plt.subplots(
        len(measures), len(factors), figsize=(WIDTH, 2 * len(measures)), sharex=True,
        sharey=True,
    )
    for measure, row in zip(measures, grid):
        row[0].set_ylabel(f"agreement\n({MEASURE_LABELS[measure]})")
        for factor, axes in zip(factors, row):
            scatter(axes, table[table.differs == factor], measure)
    for factor, top, bottom in zip(factors, grid[0], grid[-1]):
        top.set_title(factor)
        bottom.set_xlabel("similarity")
    return fig


def layers(maps: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Draw heat maps of similarities of layers, one row per measure.

    Parameters
    ----------
    maps : dict of str to dict of str to ndarray
        By measure and title, similarities (pairs, layers, layers) as
        ``summaries.by_layer`` returns them. The maps are their means over pairs.

    Examples
    --------
    >>> fig = layers({"wcka": {"seed": np.ones((5, 2, 2))}})
    >>> [text.get_text() for text in fig.axes[0].texts]
    ['1.00', '1.00', '1.00', '1.00']
    >>> plt.close(fig)
    """
    columns = len(next(iter(maps.values())))
    fig, panels = plt.subplots(
        len(maps), columns, squeeze=False, figsize=(WIDTH, 2.5 * len(maps))
    )
    for (measure, row), line in zip(maps.items(), panels):
        for axes, (title, values) in zip(line, row.items()):
            place = axes.get_subplotspec()
            numbers = range(1, values.shape[1] + 1)
            mean = pd.DataFrame(values.mean(0), numbers, numbers)  # (layers, layers)
            heat_map(axes, mean, cmap="cividis", vmin=0, vmax=1, cbar=False,
                     xticklabels=place.is_last_row(), yticklabels=place.is_first_col())
            if place.is_first_row():
                axes.set_title(title)
        line[0].set_ylabel(f"layer ({MEASURE_LABELS[measure]})")
    for axes in panels[-1]:
        axes.set_xlabel("layer")
    return fig


# ------------------------------------------------------- files of the command line


def choice_table(r: pd.DataFrame) -> Styler:
    """Return a table of correlations with one choice changed at a time, as a heat map.

    Parameters
    ----------
    r : DataFrame
        As from ``sensitivity.variants``: rows by choice and measure.

    Examples
    --------
    >>> rows = pd.MultiIndex.from_tuples([("as above", "wcka")])
    >>> "0.50" in choice_table(pd.DataFrame({"seed": [0.5]}, rows)).to_html()
    True
    """
    labelled = r.rename(MEASURE_LABELS, level=1).rename_axis([None, None])
    return labelled.style.format("{:.2f}", na_rep="–").background_gradient(
        cmap="cividis", vmin=0, vmax=1, axis=None, text_color_threshold=0.18,
    ).highlight_null(props="background-color: transparent; color: inherit")


def check_image(path: Path) -> None:
    """Refuse a file that no image can be written to.

    Raises
    ------
    ValueError
        For an ending that Matplotlib does not know, and for a folder that does not
        exist or cannot be written to.

    Examples
    --------
    >>> check_image(Path("similarities.png"))
    >>> check_image(Path("similarities.pgn"))
    Traceback (most recent call last):
    ValueError: unknown kind of image for similarities.pgn 'pgn'; did you mean ...
    """
    # Of the class: a figure would be the one that the caller has open
    endings = FigureCanvasBase.get_supported_filetypes()
    nearest(path.suffix.lower().lstrip("."), endings, f"kind of image for {path}")
    if not os.access(path.absolute().parent, os.W_OK):
        raise ValueError(f"--matrix {path}: no such folder, or not to be written to")


def draw_similarities(values: Sequence, names: Sequence[str], path: Path,
                      title: str = "wCKA") -> None:
    """Write a heat map of the similarities of all pairs to an image file.

    Parameters
    ----------
    values : (N, N)
        Similarities.
    names : sequence of N str
        Names of the rows and columns.
    path : Path
        The image.
    title : str
        What the similarities are.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "similarities.png")
    ...     draw_similarities([[1.0, 0.5], [0.5, 1.0]], ["a", "b"], path)
    ...     path.exists()
    True
    """
    style()
    table = pd.DataFrame(values, names, names)
    size = 0.6 * len(names)
    fig, axes = plt.subplots(figsize=(2.5 + size, 1.5 + size))
    heat_map(axes, table, cmap="cividis", vmin=0, vmax=1, cbar=False)
    axes.tick_params(axis="x", rotation=35)
    axes.set_title(title)
    fig.savefig(path, dpi=200)
    plt.close(fig)
