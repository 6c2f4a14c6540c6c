"""How similar two trained networks are, from their weights alone (wCKA), and the measures beside it."""

from .chain import chain
from .corruptions import CORRUPTIONS, corrupt
from .data import load
from .similarity import cka, dcka, pairwise, procrustes, wcka

__all__ = ["CORRUPTIONS", "cka", "chain", "corrupt", "dcka", "load", "pairwise", "procrustes",
           "wcka"]
