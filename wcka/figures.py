"""One look for all figures: colours by meaning, type as large as the page's, enhanced box plots."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib_inline.backend_inline import set_matplotlib_formats

# Okabe and Ito's colours, safe for colour-blind readers; wCKA stands out, the others are quiet.
MEASURES = {"procrustes": "#999999", "cka": "#56B4E9", "dcka": "#0072B2", "wcka": "#D55E00"}
ENSEMBLES = {"random": "#009E73", "adjacent": "#CC79A7"}
QUIET = "#666666"  # marks that are no measure
NAMES = {"procrustes": "Procrustes", "cka": "CKA", "dcka": "dCKA", "wcka": "wCKA"}
WIDTH = 7.4  # inches: the text of a page at its usual width


def style(many_marks: bool = False) -> None:
    """Set the style of all figures: vector, or 2x PNG where marks are too many for a vector."""
    set_matplotlib_formats("retina" if many_marks else "svg")
    sns.set_theme(context="notebook", style="ticks", font_scale=0.95, rc={
        "axes.spines.right": False, "axes.spines.top": False, "axes.titlesize": "medium",
        "figure.facecolor": "white", "figure.dpi": 100, "figure.constrained_layout.use": True,
        "legend.frameon": False, "svg.fonttype": "path", "svg.hashsalt": "wcka"})


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
    sns.heatmap(values, ax=axes, annot=values if text is None else text,
                fmt=".2f" if text is None else "", linewidths=1.5, annot_kws={"size": 9}, **kw)
    axes.set(xlabel="", ylabel="")
    axes.tick_params(length=0)
    axes.set_yticklabels(axes.get_yticklabels(), rotation=0)
    return axes

