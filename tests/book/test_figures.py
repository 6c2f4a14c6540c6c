"""What figures draw: their artists, without looking at pictures."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from wcka.book import figures

FACTORS = ["epoch", "seed", "strategy"]
MEASURES = ["procrustes", "wcka"]


@pytest.fixture(autouse=True)
def close_figures():
    """Close all figures after each test."""
    yield
    plt.close("all")


@pytest.fixture
def axes():
    """Empty axes."""
    return plt.subplots()[1]


def comparisons(r=0.5, measures=("cka", "dcka, no PSD", "bures", "wcka")):
    """Return a table as compare_measures does, with another r in each row."""
    rows = {}
    for i, measure in enumerate(measures):
        value = r + 0.02 * i
        rows[measure] = {
            "r": value, "low": value - 0.05, "high": value + 0.06,
            "model low": value - 0.15, "model high": value + 0.18,
            "difference": 0.1, "p Fisher": 0.0001, "p model": 0.03,
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.loc["wcka", ["difference", "p Fisher", "p model"]] = [0, np.nan, np.nan]
    return table


def dots(axes):
    """Return the offsets of a scatter's dots in the order of their first numbers."""
    collection, = axes.collections
    return sorted(map(tuple, collection.get_offsets().tolist()))


def texts(artists):
    """Return the texts of labels, marks or cells."""
    return [artist.get_text() for artist in artists]


def dotted_heights(axes):
    """Return the heights of the dotted lines."""
    heights = []
    for line in axes.lines:
        if line.get_linestyle() == ":":
            heights.append(list(line.get_ydata()))
    return heights


def titles(fig):
    """Return the titles of the panels, row by row."""
    return [panel.get_title() for panel in fig.axes]


def y_labels(panels):
    """Return the labels of the vertical axes."""
    return [panel.get_ylabel() for panel in panels]


# ----------------------------------------------------------------------- marks


@pytest.mark.parametrize(("p", "stars"), [
    (0.9, ""), (0.05, ""), (0.0499, "*"), (0.01, "*"), (0.00999, "**"), (0.001, "**"),
    (0.000999, "***"), (0.0, "***"),
])
def test_a_mark_has_one_star_per_threshold_below_and_the_sign(p, stars):
    if stars:
        assert figures.mark(p, 0.2) == "+" + stars
        assert figures.mark(p, -0.2) == "\N{MINUS SIGN}" + stars
    else:
        assert figures.mark(p, 0.2) == figures.mark(p, -0.2) == "n.s."


def test_marks_are_the_papers_test_above_and_over_runs_below(axes):
    table = comparisons()
    table.loc["cka", ["p Fisher", "p model", "difference"]] = [0.0001, 0.2, 0.1]
    table.loc["bures", ["p Fisher", "p model", "difference"]] = [0.004, 0.03, -0.1]
    figures.correlations(axes, table)
    figures.name_marks(axes)
    marks = {}
    lines = {}
    for text in axes.texts:
        x, height = text.get_position()
        if x < 0:
            lines[height] = text.get_text()
        else:
            marks[x, height] = text.get_text()
    lower, upper = sorted(lines)
    assert lower > 1  # above the panel
    assert lines == {upper: "as in the paper", lower: "runs and probes"}
    assert marks == {
        (0, upper): "+***", (0, lower): "n.s.",
        (1, upper): "+***", (1, lower): "+*",
        (2, upper): "\N{MINUS SIGN}**", (2, lower): "\N{MINUS SIGN}*",
    }  # and none for wCKA, which has no difference from itself
    for text in axes.texts:
        x, _ = text.get_position()
        transform = axes.transAxes if x < 0 else axes.get_xaxis_transform()
        assert text.get_transform() == transform


# ----------------------------------------------------- intervals, dots and colours


def test_correlations_have_a_broad_and_a_thin_interval_and_a_white_dot(axes):
    table = comparisons()
    figures.correlations(axes, table)
    zero, *lines = axes.lines
    assert list(zero.get_ydata()) == [0, 0]
    assert len(lines) == 3 * len(table)
    for i, (_, row) in enumerate(table.iterrows()):
        thin, broad, dot = lines[3 * i:3 * i + 3]
        assert list(thin.get_xdata()) == list(broad.get_xdata()) == [i, i]
        assert list(thin.get_ydata()) == [row["model low"], row["model high"]]
        assert list(broad.get_ydata()) == [row["low"], row["high"]]
        assert broad.get_linewidth() > 4 * thin.get_linewidth()
        assert broad.get_solid_capstyle() == "butt"  # a round one would add to its ends
        assert (list(dot.get_xdata()), list(dot.get_ydata())) == ([i], [row.r])
        assert dot.get_marker() == "o" and dot.get_color() == "white"
        assert dot.get_zorder() > max(thin.get_zorder(), broad.get_zorder())


def test_correlations_are_in_the_colours_and_names_of_their_measures(axes):
    figures.correlations(axes, comparisons())
    colors = []
    for line in axes.lines[1:]:
        if line.get_color() != "white":
            colors.append(line.get_color())
    expected = []
    for color in ("#56B4E9", "#0072B2", "#666666", "#D55E00"):
        expected += [color, color]  # of both intervals
    assert colors == expected
    names = texts(axes.get_xticklabels())
    assert names == ["CKA", "dCKA", "bures", "wCKA"]
    assert list(axes.get_xticks()) == [0, 1, 2, 3]


def test_no_two_measures_nor_kinds_of_probes_share_a_colour():
    for colors in (figures.MEASURE_COLORS, figures.PROBE_COLORS):
        palette = {*colors.values(), figures.QUIET}
        assert len(palette) == len(colors) + 1


def test_the_ceiling_is_a_dotted_line_at_its_height(axes):
    figures.correlations(axes, comparisons(), ceiling=0.83)
    assert dotted_heights(axes) == [[0.83, 0.83]]
    without_ceiling = plt.subplots()[1]
    figures.correlations(without_ceiling, comparisons())
    assert dotted_heights(without_ceiling) == []


def test_a_scatter_has_similarity_across_agreement_up_and_colours_by_kind(axes):
    table = pd.DataFrame({
        "kind": ["clean", "corrupted", "attacked", "clean"],
        "agreement": [0.9, 0.8, 0.7, 0.6], "wcka": [0.1, 0.2, 0.3, 0.4],
    }, index=[7, 3, 5, 1])
    figures.scatter(axes, table, "wcka")
    collection, = axes.collections
    color_at = {}
    for offset, color in zip(collection.get_offsets(), collection.get_facecolors()):
        color_at[tuple(offset.tolist())] = to_hex(color).upper()
    assert color_at == {
        (0.1, 0.9): "#000000", (0.2, 0.8): "#E69F00", (0.3, 0.7): "#009E73",
        (0.4, 0.6): "#000000",
    }


def test_no_kind_of_probe_is_drawn_on_top_of_another(axes):
    table = pd.DataFrame({"kind": ["clean"] * 50 + ["attacked"] * 50,
                          "agreement": 0.9, "wcka": np.arange(100) / 100})
    figures.scatter(axes, table, "wcka")
    x = axes.collections[0].get_offsets()[:, 0]
    assert abs(np.corrcoef(np.arange(100), x)[0, 1]) < 0.3


# ---------------------------------------------------------------- order of panels


@pytest.fixture
def table():
    """Return a grid in which each factor has agreements of its own."""
    parts = []
    for i, factor in enumerate(FACTORS):
        parts.append(pd.DataFrame({
            "differs": factor, "kind": ["clean", "attacked"],
            "probe": ["clean", "gaussian_noise"],
            "agreement": [0.1 * i, 0.1 * i + 0.05],
            "wcka": [0.3, 0.4], "procrustes": [0.6, 0.7],
        }))
    return pd.concat(parts, ignore_index=True)


def results_of(r):
    """Return comparisons by factor, with r + 0, 0.1 and 0.2."""
    tables = {}
    for i, factor in enumerate(FACTORS):
        tables[factor] = comparisons(r + 0.1 * i, MEASURES)
    return pd.concat(tables, names=["differs", "measure"])


def heights_of_dots(axes):
    """Return r of the measures from the white dots of ``figures.correlations``."""
    heights = []
    for line in axes.lines:
        if line.get_color() == "white":
            heights.append(line.get_ydata()[0])
    return heights


def test_benchmark_has_factors_as_columns_and_three_rows(table):
    results = {"spearman": results_of(0.3), "pearson": results_of(0.6)}
    order = ["seed", "strategy", "epoch"]  # neither of the table nor of the alphabet
    ceilings = pd.Series({"seed": 0.91, "strategy": 0.92, "epoch": 0.93})
    fig = figures.benchmark(table, results, ceilings)
    panels = np.array(fig.axes).reshape(3, 3)
    for factor, (top, middle, bottom) in zip(order, panels.T):
        assert top.get_title() == factor
        assert top.get_xlabel() == "wCKA"
        part = table[table.differs == factor]
        assert dots(top) == list(zip(part.wcka, part.agreement))
        for panel, method in ((middle, "pearson"), (bottom, "spearman")):
            assert heights_of_dots(panel) == results[method].loc[factor].r.tolist()
        assert dotted_heights(middle) == [[ceilings[factor]] * 2]
        assert dotted_heights(bottom) == []
    assert y_labels(panels[:, 0]) == ["agreement", "Pearson's r", "Spearman's ρ"]
    names = texts(panels[2, 0].get_xticklabels())
    assert names == ["Procrustes", "wCKA"]


def test_benchmark_names_the_kinds_of_probes_that_are_there_in_their_colours(table):
    results = {"pearson": results_of(0.6), "spearman": results_of(0.3)}
    ceilings = pd.Series(1.0, FACTORS)
    fig = figures.benchmark(table, results, ceilings)
    kinds = {}
    for text in fig.axes[0].texts:
        kinds[text.get_text()] = text.get_color()
    assert kinds == {"clean": "#000000", "attacked": "#009E73"}
    named = []
    for i, panel in enumerate(fig.axes):
        if "runs and probes" in texts(panel.texts):
            named.append(i)
    assert named == [3, 6]  # the first panels of the second and third rows


def test_readings_have_one_panel_per_factor_in_the_order_of_the_table():
    results = results_of(0.4)
    fig = figures.readings(results)
    for factor, panel in zip(FACTORS, fig.axes):
        assert heights_of_dots(panel) == results.loc[factor].r.tolist()
        assert factor in texts(panel.texts)
    assert y_labels(fig.axes) == ["Pearson's r", "", "Pearson's r", ""]


def test_scatters_have_measures_as_rows_and_factors_as_columns(table):
    fig = figures.scatters(table, ["wcka", "procrustes"])
    panels = np.array(fig.axes).reshape(2, 3)
    for measure, row in zip(("wcka", "procrustes"), panels):
        for factor, panel in zip(FACTORS, row):
            part = table[table.differs == factor]
            assert dots(panel) == list(zip(part[measure], part.agreement))
    assert titles(fig) == [*FACTORS, "", "", ""]
    assert [panel.get_xlabel() for panel in fig.axes] == [""] * 3 + ["similarity"] * 3
    expected = ["agreement\n(wCKA)", "agreement\n(Procrustes)"]
    assert y_labels(panels[:, 0]) == expected


def cells(axes):
    """Return the numbers in the cells of a heat map, row by row."""
    return list(map(float, texts(axes.texts)))


def test_by_kind_is_in_the_order_of_kinds_with_measures_as_rows():
    def r(value):
        return pd.DataFrame({"seed": [value, value + 0.1],
                             "epoch": [value + 0.2, value + 0.3]}, ["cka", "wcka"])

    fig = figures.by_kind({"attacked": r(0.5), "clean": r(0.2), "unknown": r(0.0)})
    assert titles(fig) == ["clean", "attacked"]
    assert cells(fig.axes[0]) == [0.2, 0.4, 0.3, 0.5]
    assert cells(fig.axes[1]) == [0.5, 0.7, 0.6, 0.8]
    for panel in fig.axes:
        names = texts(panel.get_xticklabels())
        assert names == ["seed", "epoch"]
        assert panel.collections[0].get_clim() == (0, 1)
    names = texts(fig.axes[0].get_yticklabels())
    assert names == ["CKA", "wCKA"]
    assert not fig.axes[1].get_yticklabels()


def test_layers_have_measures_as_rows_and_show_means_over_pairs():
    maps = {}
    for i, measure in enumerate(("wcka", "cka")):
        maps[measure] = {}
        for j, title in enumerate(("seed", "epoch", "strategy")):
            values = np.full((4, 2, 2), 0.1 * (3 * i + j))
            values[:2, 0, 1] += 0.02  # half of the pairs: 0.01 of the mean
            maps[measure][title] = values
    fig = figures.layers(maps)
    panels = np.array(fig.axes).reshape(2, 3)
    for i in range(2):
        for j in range(3):
            value = 0.1 * (3 * i + j)
            expected = [value, value + 0.01, value, value]
            assert cells(panels[i, j]) == pytest.approx(expected)
            assert bool(panels[i, j].get_xticklabels()) == (i == 1)
            assert bool(panels[i, j].get_yticklabels()) == (j == 0)
    assert titles(fig) == ["seed", "epoch", "strategy", "", "", ""]
    assert y_labels(panels[:, 0]) == ["layer (wCKA)", "layer (CKA)"]
    numbers = texts(panels[1, 0].get_xticklabels())
    assert numbers == ["1", "2"]


def test_agreement_has_probes_as_rows_and_factors_as_columns(table):
    fig = figures.agreement(table)
    expected = [0, 0.1, 0.2, 0.05, 0.15, 0.25]
    assert cells(fig.axes[0]) == pytest.approx(expected, abs=0.0051)
    columns = texts(fig.axes[0].get_xticklabels())
    rows = texts(fig.axes[0].get_yticklabels())
    assert columns == FACTORS and rows == ["clean", "gaussian noise"]


# ------------------------------------------------------------- heat maps and files


def test_a_heat_map_shows_its_text_or_its_numbers_and_keeps_the_layout(axes):
    axes.figure.set_layout_engine("constrained")
    values = pd.DataFrame([[0.125, 0.5], [1, 0]], ["a", "b"], ["c", "d"])
    figures.heat_map(axes, values, values.map("<{}>".format))
    assert texts(axes.texts) == [
        "<0.125>", "<0.5>", "<1.0>", "<0.0>"]
    assert axes.collections[0].get_array().ravel().tolist() == [0.125, 0.5, 1, 0]
    assert type(axes.figure.get_layout_engine()).__name__ == "ConstrainedLayoutEngine"


def test_an_image_file_needs_a_known_ending_and_a_folder(tmp_path):
    for name in ("a.png", "a.PDF", "a.svg"):
        figures.check_image(tmp_path / name)
    for name in ("a.pgn", "a", "a.png.txt"):
        with pytest.raises(ValueError, match="kind of image"):
            figures.check_image(tmp_path / name)
    with pytest.raises(ValueError, match="no such folder"):
        figures.check_image(tmp_path / "folder" / "a.png")
    assert not plt.get_fignums() and not list(tmp_path.iterdir())


def test_the_callers_figure_stays_open_when_an_image_is_checked(tmp_path):
    figure = plt.figure()
    figures.check_image(tmp_path / "a.png")
    assert plt.get_fignums() == [figure.number]
    plt.close(figure)


def test_drawn_similarities_are_in_a_file_and_the_figure_is_closed(tmp_path):
    values = [[1.0, 0.25], [0.25, 1.0]]
    figures.draw_similarities(values, ["a", "b"], tmp_path / "matrix.png")
    small = plt.imread(tmp_path / "matrix.png")
    figures.draw_similarities(np.eye(4), list("abcd"), tmp_path / "larger.png")
    large = plt.imread(tmp_path / "larger.png")
    assert small.std() > 0.05  # it is not blank
    assert large.shape[0] > small.shape[0] and large.shape[1] > small.shape[1]
    assert not plt.get_fignums()
