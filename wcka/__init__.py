"""How similar trained networks are: by their weights alone (wCKA) and other measures.

Each name is imported when it is first used; ``import wcka`` loads no other package.

Examples
--------
>>> import torch, wcka
>>> network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
>>> round(wcka.wcka(network, network), 6)
1.0
"""

from typing import TYPE_CHECKING

from ._lazy import attach

# The same names once more, for type checkers and editors; a test compares both lists.
if TYPE_CHECKING:
    from .measures.nulls import Null as Null
    from .measures.predictions import agreement as agreement
    from .measures.similarity import cka as cka
    from .measures.similarity import dcka as dcka
    from .measures.similarity import mean_cca as mean_cca
    from .measures.similarity import minibatch_cka as minibatch_cka
    from .measures.similarity import procrustes as procrustes
    from .measures.similarity import pwcca as pwcca
    from .measures.similarity import rbf_cka as rbf_cka
    from .measures.similarity import relu_cka as relu_cka
    from .measures.similarity import relu_procrustes as relu_procrustes
    from .measures.similarity import svcca as svcca
    from .measures.similarity import unbiased_cka as unbiased_cka
    from .networks import attacks as attacks
    from .networks.corruptions import CORRUPTIONS as CORRUPTIONS
    from .networks.corruptions import corrupt as corrupt
    from .networks.image_sets import load as load
    from .weights.chains import chain as chain
    from .weights.expected_jacobians import expected_jacobian as expected_jacobian
    from .weights.expected_jacobians import expected_similarity as expected_similarity
    from .weights.expected_jacobians import gaussian_inputs as gaussian_inputs
    from .weights.expected_jacobians import input_moments as input_moments
    from .weights.from_queries import jacobian_from_outputs as jacobian_from_outputs
    from .weights.from_queries import similarity_from_outputs as similarity_from_outputs
    from .weights.pairs import null as null
    from .weights.pairs import pairwise as pairwise
    from .weights.pairs import pairwise_null as pairwise_null
    from .weights.pairs import wcka as wcka
    from .weights.token_circuits import circuits as circuits
    from .weights.token_circuits import compare_circuits as compare_circuits

__getattr__, __dir__, __all__ = attach(__name__, {
    "measures.similarity": (
        "cka", "dcka", "mean_cca", "minibatch_cka", "procrustes", "pwcca", "rbf_cka",
        "relu_cka", "relu_procrustes", "svcca", "unbiased_cka"),
    "measures.nulls": ("Null",),
    "measures.predictions": ("agreement",),
    "weights.chains": ("chain",),
    "weights.expected_jacobians": (
        "expected_jacobian", "expected_similarity", "gaussian_inputs", "input_moments"),
    "weights.from_queries": ("jacobian_from_outputs", "similarity_from_outputs"),
    "weights.pairs": ("null", "pairwise", "pairwise_null", "wcka"),
    "weights.token_circuits": ("circuits", "compare_circuits"),
    "networks": ("attacks",),
    "networks.corruptions": ("CORRUPTIONS", "corrupt"),
    "networks.image_sets": ("load",),
})
