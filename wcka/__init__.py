"""How similar two trained networks are, from their weights alone (wCKA), and measures beside it."""

from .chain import chain
from .corruptions import CORRUPTIONS, corrupt
from .data import load
from .similarity import cka, dcka, pairwise, procrustes, wcka

__all__ = ["CORRUPTIONS", "chain", "cka", "corrupt", "dcka", "load", "pairwise",
           "procrustes", "wcka"]
