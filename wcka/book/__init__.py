"""The book: parameters, execution, claims and verdicts, figures, pages."""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {
    "": ("checkout", "claims", "figures", "leads", "parameters", "rules",
         "sentences"),
    "claims": ("interval", "say", "with_interval"),
    "ranges": ("distinct", "within"),
    "tables": ("keep_grid", "keep_table"),
})
