"""How often scores put two groups in the wrong order, with errors over networks.

Rows of one network, or of one pair of networks, are not independent. Errors are
jackknives that leave out a network with all its rows. Where no pair is in the wrong
order, with and without any network, a jackknife says nothing, and the number of
networks bounds what may be.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..measures.spelling import nearest
from .crossed import Estimate, estimates_from
from .statistics import overlap


def misordered(lower, upper, lower_networks, upper_networks) -> Estimate:
    """Return the share of pairs of rows, one of each group, in the wrong order.

    It is one minus the area under the ROC curve. Ties count half.

    Parameters
    ----------
    lower, upper : array-like
        (n,) and (m,), scores of the group that should score low and of the other one.
    lower_networks, upper_networks : array-like
        The networks that each row depends on: (n,) or (n, networks), and (m,) or (m,
        networks), by any names.

    Returns
    -------
    Estimate
        0 where no pair is in the wrong order, 1/2 where the groups cannot be told
        apart; the error is over networks.

    Raises
    ------
    ValueError
        If a group is empty, or all rows of it depend on one network.

    Examples
    --------
    >>> share = misordered([0.1, 0.2, 0.5], [0.4, 0.6, 0.7], [0, 1, 2], [0, 1, 2])
    >>> round(share.value, 3), round(share.error, 3)
    (0.111, 0.167)
    """
    lower = np.asarray(lower, float)
    upper = np.asarray(upper, float)
    lower_networks = _two_dimensional(lower_networks)
    upper_networks = _two_dimensional(upper_networks)
    names = np.unique(np.concatenate([lower_networks.ravel(), upper_networks.ravel()]))
    without_networks = []
    for name in names:
        kept_lower = lower[(lower_networks != name).all(1)]
        kept_upper = upper[(upper_networks != name).all(1)]
        if not kept_lower.size or not kept_upper.size:
            raise ValueError(
                f"without network {name} one of the two groups has no rows; wanted "
                "each group from at least two networks")
        without_networks.append([overlap(kept_lower, kept_upper)])
    share, = estimates_from([overlap(lower, upper)], without_networks)
    return share


def bound_on_zero(count: int, level: float = 0.95) -> float:
    """Return the largest share of networks that may err although none of some did.

    It is the upper end of the one-sided interval of Clopper & Pearson (1934), and about
    3 / count at 95 % (the rule of three). A network errs if any pair of rows with it is
    in the wrong order, so that the share of such pairs is smaller still.

    Parameters
    ----------
    count : int
        Number of independent networks, at least 1.
    level : float
        Confidence, between 0 and 1.

    Raises
    ------
    ValueError
        For no network, or another level.

    Examples
    --------
    >>> round(bound_on_zero(12), 3), round(bound_on_zero(60), 3)
    (0.221, 0.049)
    """
    if count < 1:
        raise ValueError(f"count: wanted at least one network, got {count}")
    if not 0 < level < 1:
        raise ValueError(f"level: wanted between 0 and 1, got {level}")
    return 1 - (1 - level) ** (1 / count)


def note_on_zeros(shares: Sequence[Estimate], unit: str) -> str:
    """Return a clause on shares of zero, which have no jackknife error.

    Parameters
    ----------
    shares : sequence of Estimate
        As ``misordered`` returns them.
    unit : str
        What was left out, in the plural.

    Returns
    -------
    str
        Empty where no share is zero.

    Examples
    --------
    >>> note_on_zeros([Estimate(0.0, 0.0, 11), Estimate(0.1, 0.02, 11)], "families")
    'a share of 0 means that none of 12 families has a pair in the wrong order; up ...
    >>> note_on_zeros([Estimate(0.1, 0.02, 11)], "families")
    ''
    """
    counts = []
    for share in shares:
        if share.value == 0 and share.error == 0:
            counts.append(round(share.df) + 1)
    if not counts:
        return ""
    count = min(counts)
    percent = 100 * bound_on_zero(count)
    return (f"a share of 0 means that none of {count} {unit} has a pair in the wrong "
            f"order; up to {percent:.0f} % of others may have one (95 %, Clopper and "
            f"Pearson)")


def _two_dimensional(networks) -> np.ndarray:
    """Return the networks of each row, (rows, networks)."""
    networks = np.asarray(networks)
    return networks[:, None] if networks.ndim == 1 else networks


def leads_in_order(
    scores: pd.DataFrame, is_lower, networks, reference: str
) -> dict[str, Estimate]:
    """Compare how often one score and others put two groups in the wrong order.

    Parameters
    ----------
    scores : DataFrame
        One column per score.
    is_lower : array-like of bool
        (rows,), whether a row belongs to the group that should score low.
    networks : array-like
        (rows,), the network that each row depends on.
    reference : str
        The score whose lead over the others is estimated.

    Returns
    -------
    dict of str to Estimate
        For each other score the pairs that it puts in the wrong order minus those of
        the reference, divided by their sum: between -1 and 1, and 0 where none of the
        two makes a mistake. Near perfect order the areas under two ROC curves differ
        by little, and this number shows who makes fewer mistakes. The error is over
        networks.

    Raises
    ------
    ValueError
        For an unknown reference, or if a group is empty without one of the networks.

    Examples
    --------
    >>> scores = pd.DataFrame({"wcka": [0, 1, 2, 3, 4, 5, 6, 7],
    ...                        "cosine": [0, 3, 1, 4, 2, 5, 6, 7]})
    >>> is_lower = [True, True, True, False, False, False, False, False]
    >>> leads = leads_in_order(scores, is_lower, [0, 1, 2, 0, 1, 2, 0, 1], "wcka")
    >>> leads["cosine"].value
    1.0
    """
    nearest(reference, list(scores), "reference")
    values = scores.to_numpy(float)
    is_lower = np.asarray(is_lower, bool)
    networks = np.asarray(networks)
    rivals = [name for name in scores if name != reference]

    def leads(is_kept: np.ndarray) -> list[float]:
        lower = values[is_kept & is_lower]
        upper = values[is_kept & ~is_lower]
        if not len(lower) or not len(upper):
            raise ValueError("wanted each group from at least two networks")
        wrong = {}
        for i, name in enumerate(scores):
            wrong[name] = overlap(lower[:, i], upper[:, i])
        of_rivals = []
        for name in rivals:
            total = wrong[name] + wrong[reference]
            difference = wrong[name] - wrong[reference]
            of_rivals.append(difference / total if total else 0.0)
        return of_rivals

    value = leads(np.ones(len(values), bool))
    without_networks = [leads(networks != name) for name in np.unique(networks)]
    return dict(zip(rivals, estimates_from(value, without_networks)))
