"""Language models that are strangers to each other, of several sizes.

How similar the circuits of unrelated models are depends on their vocabulary, their
width, their text and how long they learned. Two checkpoints of unknown origin are of
one more such kind. So each kind of model here gives one observation, the score of two
models that learned the same text from different weights, and what varies from kind to
kind is the null for a pair of another kind: see ``weights.strangers``.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..networks import texts
from ..networks.language_models import LanguageModel, train
from ..weights.strangers import TABLE
from ..weights.token_circuits import CIRCUITS, circuits, compare_circuits
from .cache import cached
from .jobs import run_jobs

_USUAL = {"tokens": 1024, "width": 64, "depth": 3, "heads": 4, "units": 128}
# Each kind is the model of chapter 9 with something else; all of them take minutes.
# Each model begins with weights of its own: scores of kinds whose models began with
# the same would not be independent.
KINDS = (
    {"text": "documentation", "steps": 200, **_USUAL, "seed": 0},
    {"text": "code", "steps": 600, **_USUAL, "seed": 2},
    {"text": "code", "steps": 200, **_USUAL, "width": 128, "units": 256, "seed": 4},
    {"text": "documentation", "steps": 600, **_USUAL, "width": 32, "units": 64,
     "seed": 6},
    {"text": "documentation", "steps": 200, **_USUAL, "tokens": 3000, "seed": 8},
    {"text": "code", "steps": 200, **_USUAL, "tokens": 400, "seed": 10},
    {"text": "code", "steps": 200, **_USUAL, "depth": 6, "seed": 12},
)


@cached
def stranger_scores(
    text: str, steps: int, tokens: int, width: int, depth: int, heads: int, units: int,
    seed: int = 0,
) -> pd.DataFrame:
    """Train two models on one text from different weights, and compare their circuits.

    Parameters
    ----------
    text : str
        One of ``texts.TEXTS``.
    steps : int
        Of training.
    tokens, width, depth, heads, units : int
        Arguments of ``LanguageModel``.
    seed : int
        Of the first model; that of the second is the next one.

    Returns
    -------
    DataFrame
        One row: the arguments, and "score", the median over circuits of their means
        over layers.

    Examples
    --------
    >>> sizes = dict(tokens=300, width=8, depth=1, heads=2, units=8)
    >>> bool(stranger_scores("code", 2, **sizes).score.between(0, 1).all())
    True
    """
    sizes = {"tokens": tokens, "width": width, "depth": depth, "heads": heads,
             "units": units}
    numbers = texts.encoded(text, tokens)
    models = []
    for model_seed in (seed, seed + 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(model_seed)
            model = LanguageModel(**sizes)
        train(model, numbers, steps, model_seed)
        state = {name: values.double() for name, values in model.state_dict().items()}
        models.append(circuits(state, model.config))
    tables = compare_circuits(models)
    means = [tables[circuit].mean(0)[0, 1] for circuit in CIRCUITS]
    score = float(np.median(means))
    return pd.DataFrame([
        {"text": text, "steps": steps, **sizes, "seed": seed, "score": score}])


def write_table(jobs: int = -1) -> Path:
    """Train all ``KINDS`` and write the table that ``weights.strangers`` reads.

    Parameters
    ----------
    jobs : int
        As in ``jobs.run_jobs``.

    Examples
    --------
    >>> write_table()  # doctest: +SKIP
    """
    rows = run_jobs(stranger_scores, list(KINDS), jobs, "strangers")
    lines = [json.dumps(row) for row in rows.round(4).to_dict("records")]
    TABLE.write_text("[" + ",\n ".join(lines) + "]\n", "utf-8")
    return TABLE
