"""Images, and the networks that are trained on them and attacked."""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {
    "": ("architectures", "attacks", "counterexamples", "edits", "image_sets"),
    "architectures": ("mlp",),
    "attacks": ("BY_GRADIENT",),
    "probes": ("PROBES", "expand_probes", "kind_of_probe", "labelled_images",
               "probe_images"),
    "populations": ("Population", "Transfer", "build", "chains", "extract",
                    "initialise", "resolve_device"),
    "training": ("train",),
})
