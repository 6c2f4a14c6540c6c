"""Scores of language models that have nothing to do with each other.

A folder of a few checkpoints does not say how similar unrelated ones are. Of language
models the book has some: pairs of small ones that learned one text from different
weights (``experiments.strangers``). Each pair is of another kind: another vocabulary,
width, depth or time of training. Scores vary more from kind to kind than within one,
and two checkpoints of unknown origin are of one more kind.

There is no such table of first layers: what those of strangers have in common depends
on the number of inputs and units, and on what the inputs are.
"""

import json
from pathlib import Path

import numpy as np

from ..measures.validation import Array

TABLE = Path(__file__).with_suffix(".json")


def language_model_scores() -> Array:
    """Return the scores of the book's pairs of strangers, one for each kind.

    Returns
    -------
    ndarray
        (kinds,), each the median of the four circuits, see ``by_circuit``.

    Examples
    --------
    >>> scores = language_model_scores()
    >>> len(scores) >= 5, bool(0 < scores.min() < scores.max() < 1)
    (True, True)
    """
    rows = json.loads(TABLE.read_text("utf-8"))
    return np.array([row["score"] for row in rows])
