"""The experiments of the chapters: results on disk, jobs, statistics."""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {
    "": ("benchmark", "jobs", "matching", "other_libraries", "statistics",
         "summaries"),
    "cache": ("cached",),
    "calibration": ("ensemble_similarities",),
    "ensembles": ("calibration_error", "least_similar"),
    "sensitivity": ("open_choices", "other_trainings", "variants"),
    "training_runs": ("frozen", "pretrained", "trained", "training_rows"),
})
