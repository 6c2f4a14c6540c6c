"""A network's weights as features: its chain, its linear skeleton, its files."""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {
    "": ("symmetry",),
    "chains": ("linear_layers",),
    "skeleton": ("NotLinear",),
})
