"""How similar two trained networks are, from their weights alone (wCKA), and measures beside it."""

from . import attacks
from .chain import chain
from .corruptions import CORRUPTIONS, corrupt
from .data import load
from .functional import agreement
from .similarity import cka, dcka, pairwise, procrustes, wcka

__all__ = ["CORRUPTIONS", "agreement", "attacks", "chain", "cka", "corrupt", "dcka", "load",
           "pairwise", "procrustes", "wcka"]
