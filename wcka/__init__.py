"""How similar two trained networks are, from their weights alone (wCKA), and measures beside it."""

from . import attacks
from .chain import chain
from .corruptions import CORRUPTIONS, corrupt
from .data import load
from .functional import agreement
from .similarity import (
    cka,
    dcka,
    mean_cca,
    minibatch_cka,
    pairwise,
    procrustes,
    pwcca,
    rbf_cka,
    relu_cka,
    relu_procrustes,
    svcca,
    unbiased_cka,
    wcka,
)

__all__ = ["CORRUPTIONS", "agreement", "attacks", "chain", "cka", "corrupt", "dcka", "load",
           "mean_cca", "minibatch_cka", "pairwise", "procrustes", "pwcca", "rbf_cka", "relu_cka",
           "relu_procrustes", "svcca", "unbiased_cka", "wcka"]
