"""Similarity of feature matrices whose rows are shared."""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {
    "": ("definitions", "inner_products"),
    "all_pairs": (
        "ACTIVATION_MEASURES", "INVARIANCES", "MEASURES", "MEASURE_LABELS", "NO_PSD",
        "PAPER_MEASURES", "UNCENTRED", "compare"),
    "deconfounding": ("Confounder",),
    "spelling": ("nearest",),
    "predictions": ("agreement", "collapsed", "pairwise_agreement"),
})
