"""Sentences that are put together from results, with a form for each case.

None, one, several and all read differently; the tests print every case.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

from ..measures.spelling import listed

# What one claim does, and what several claims do, by their verdict
_VERBS = {
    "holds": ("holds", "hold"),
    "partly": ("holds in part", "hold in part"),
    "fails": ("fails", "fail"),
    "cannot be told": ("cannot be told from these runs",) * 2,
}


# --------------------------------------------------------------------- parts of speech


def capitalised(text: str) -> str:
    """Return a text with a capital first letter, and the rest as it is.

    Names of measures keep their small letters: no sentence begins "WCKA".

    Examples
    --------
    >>> capitalised("the gap in accuracy"), capitalised("wCKA leads")
    ('The gap in accuracy', 'wCKA leads')
    """
    if text.startswith(("wCKA", "dCKA")):
        return text
    return text[:1].upper() + text[1:]


def percent(share: float, digits: int = 1) -> str:
    """Return a share as percent, with a space before the sign.

    Examples
    --------
    >>> percent(0.125), percent(0.125, digits=0)
    ('12.5 %', '12 %')
    """
    return f"{100 * share:.{digits}f} %"


def bound(value: float, form: str, lower: bool = False) -> str:
    """Return a bound in few digits, rounded outwards: what it bounds stays within.

    Parameters
    ----------
    value : float
        The largest of some numbers, or the smallest.
    form : str
        A format specification, such as ".0e".
    lower : bool
        Whether it is the smallest, which is rounded down.

    Examples
    --------
    >>> bound(2.4e-12, ".0e"), bound(2e-12, ".0e")
    ('3e-12', '2e-12')
    >>> bound(0.98769, ".4f", lower=True)
    '0.9876'
    """
    with localcontext(rounding=ROUND_FLOOR if lower else ROUND_CEILING):
        # By its shortest digits: the float 2e-12 is a little more than 2e-12.
        rounded = f"{Decimal(repr(float(value))):{form}}"
    return f"{float(rounded.replace(',', '')):{form}}"


def _with_verb(names: Sequence[str], singular: str, plural: str) -> str:
    """Return names as the subject of a verb that agrees with their number."""
    verb = singular if len(names) == 1 else plural
    return capitalised(f"{listed(names)} {verb}")


# ----------------------------------------------------------------------- any sentences


def count_sentence(verdicts: Sequence[str], one: str, several: str) -> str:
    """Return a sentence that counts claims by verdict.

    Parameters
    ----------
    verdicts : sequence of str
        One per claim.
    one, several : str
        What one claim is called, and what several are called.

    Examples
    --------
    >>> count_sentence([], "claim", "claims")
    'No claim was tested.'
    >>> count_sentence(["holds"], "claim", "claims")
    'The one claim that was tested holds.'
    >>> count_sentence(["fails", "fails"], "claim", "claims")
    'All 2 claims fail.'
    >>> count_sentence(["holds", "partly", "partly"], "claim", "claims")
    'Of 3 claims, 1 holds and 2 hold in part.'
    """
    counts = Counter(verdicts)
    total = len(verdicts)
    if total == 0:
        return f"No {one} was tested."
    if total == 1:
        return f"The one {one} that was tested {_VERBS[verdicts[0]][0]}."
    if len(counts) == 1:
        return f"All {total} {several} {_VERBS[verdicts[0]][1]}."
    phrases = []
    for verdict, (singular, plural) in _VERBS.items():
        count = counts[verdict]
        if count:
            phrases.append(f"{count} {singular if count == 1 else plural}")
    return f"Of {total} {several}, {listed(phrases)}."


def told_sentence(in_part: int, not_in_full: int) -> str:
    """Return a sentence on what is known of claims that cannot be told, or nothing.

    Parameters
    ----------
    in_part, not_in_full : int
        How many of them hold at least in part, and how many do not hold in full.

    Examples
    --------
    >>> told_sentence(7, 1)
    'Of those that cannot be told, 7 hold at least in part and 1 does not hold in full.'
    >>> told_sentence(0, 0)
    ''
    """
    phrases = []
    if in_part:
        phrases.append(f"{in_part} {'holds' if in_part == 1 else 'hold'} at least in "
                       f"part")
    if not_in_full:
        phrases.append(f"{not_in_full} {'does' if not_in_full == 1 else 'do'} not hold "
                       f"in full")
    if not phrases:
        return ""
    return f"Of those that cannot be told, {listed(phrases)}."


def higher_and_lower(
    subject: str, higher: Sequence[str], lower: Sequence[str], more: str, less: str,
    neither: str,
) -> str:
    """Return a sentence on what is significantly higher, and what lower.

    Parameters
    ----------
    subject : str
        With its verb, such as "r is".
    higher, lower : sequence of str
        Where it is significantly higher, and where lower.
    more, less : str
        What stands before these, such as "higher for".
    neither : str
        What is said if both are empty.

    Examples
    --------
    >>> words = ("higher for", "lower for", "not significantly different")
    >>> higher_and_lower("r is", ["seed"], ["epoch", "strategy"], *words)
    'r is significantly higher for seed and significantly lower for epoch and strategy.'
    >>> higher_and_lower("r is", [], [], *words)
    'r is not significantly different.'
    """
    clauses = []
    if higher:
        clauses.append(f"significantly {more} {listed(higher)}")
    if lower:
        clauses.append(f"significantly {less} {listed(lower)}")
    return f"{subject} {' and '.join(clauses) or neither}."


# ------------------------------------------------------------------ those of a chapter


def left_out_sentence(collapsed: int, weak: int, limit: float) -> str:
    """Return a sentence on the networks whose pairs do not count.

    Parameters
    ----------
    collapsed : int
        How many predict one class for nearly all images.
    weak : int
        How many others have not learned.
    limit : float
        The clean accuracy from which a network counts as having learned.

    Examples
    --------
    >>> left_out_sentence(0, 1, 0.95)
    'No network predicts one class for nearly all images, and 1 has a clean accuracy
    below 95 %.'
    >>> left_out_sentence(3, 0, 0.9)
    '3 networks predict one class for nearly all images, and none of the others has a
    clean accuracy below 90 %.'
    """
    first = {0: "no network predicts", 1: "1 network predicts"}.get(
        collapsed, f"{collapsed:,} networks predict")
    if weak:
        more = " more" if collapsed else ""
        second = f"{weak:,}{more} {'has' if weak == 1 else 'have'}"
    else:
        second = "none of the others has" if collapsed else "none has"
    return capitalised(f"{first} one class for nearly all images, and {second} a clean "
                       f"accuracy below {percent(limit, digits=0)}.")


def cheaper_sentence(largest_sizes: Mapping[str, int]) -> str:
    """Return a sentence on the measures that take fewer operations than wCKA.

    Parameters
    ----------
    largest_sizes : mapping of str to int
        By measure, the largest number of probes at which it does; measures that never
        do are not in it.

    Examples
    --------
    >>> cheaper_sentence({"CKA": 100, "Procrustes": 1000})
    'CKA (up to 100 probes) and Procrustes (up to 1,000 probes) take fewer multiply-...'
    >>> cheaper_sentence({})
    'No other measure takes fewer multiply-adds than wCKA at these sizes.'
    """
    if not largest_sizes:
        return "No other measure takes fewer multiply-adds than wCKA at these sizes."
    names = []
    for measure, size in largest_sizes.items():
        names.append(f"{measure} (up to {size:,} probes)")
    return f"{_with_verb(names, 'takes', 'take')} fewer multiply-adds than wCKA."


def wrong_order_sentence(shares: Mapping[str, tuple[float, float]]) -> str:
    """Return a sentence on the pairs that scores put in the wrong order.

    Parameters
    ----------
    shares : mapping of str to (float, float)
        By score, the shares of such pairs among those with a stranger and among those
        with a changed copy; empty if there are no such pairs.

    Examples
    --------
    >>> wrong_order_sentence({"wCKA": (0.01, 0.02)})
    'wCKA puts 1.0 % of the pairs with a stranger and 2.0 % of those with a changed ...'
    """
    if not shares:
        return ("In this run copies are all faithful, or all changed, so that there is "
                "nothing to put in order.")
    clauses = []
    for score, (of_strangers, of_changed) in shares.items():
        clauses.append(
            f"{score} puts {percent(of_strangers)} of the pairs with a stranger and "
            f"{percent(of_changed)} of those with a changed copy in the wrong order")
    return f"{capitalised('; '.join(clauses))}. Guessing would get 50 % wrong."


def beaten_sentence(subject: str, shares: Mapping[str, Mapping[str, float]]) -> str:
    """Return a sentence on the random ensembles that chosen ones beat.

    Parameters
    ----------
    subject : str
        The chosen ensembles, in the plural.
    shares : mapping of str to mapping
        By the networks that are chosen from, and by respect, the share that is beaten.

    Examples
    --------
    >>> beaten_sentence("They", {"one shape": {"accuracy": 0.5}})
    'They beat 50 % of random ones in accuracy (one shape).'
    """
    clauses = []
    for source, by_respect in shares.items():
        texts = [f"{percent(share, 0)} in {respect}"
                 for respect, share in by_respect.items()]
        clauses.append(f"{listed(texts)} ({source})")
    # What the shares are of is said once, behind the first.
    text = ", and ".join(clauses).replace(" % ", " % of random ones ", 1)
    return f"{subject} beat {text}."


def chance_sentence(choice: str, is_better: Mapping[str, bool]) -> str:
    """Return a sentence on the respects in which a choice beats chance.

    Parameters
    ----------
    choice : str
        What is chosen by.
    is_better : mapping of str to bool
        By respect, whether the choice is significantly better than chance.

    Examples
    --------
    >>> chance_sentence("low wCKA", {"accuracy": True, "disagreement": False})
    'Choosing by low wCKA beats chance significantly in accuracy, not in disagreement.'
    """
    better = [respect for respect, yes in is_better.items() if yes]
    others = [respect for respect, yes in is_better.items() if not yes]
    subject = f"Choosing by {choice}"
    if not better:
        return f"{subject} does not beat chance significantly in any respect."
    if not others:
        respects = listed(better)
        return f"{subject} beats chance significantly in every respect: {respects}."
    text = f"{subject} beats chance significantly in {listed(better)}"
    if len(others) == 1:
        return f"{text}, not in {others[0]}."
    return f"{text}, not in the other respects."


def equal_values_sentence(differences: Sequence[float], n_functions: int) -> str:
    """Return a sentence on the functions of other libraries that give our values.

    Parameters
    ----------
    differences : sequence of float
        Of those that do, how far they are from ours.
    n_functions : int
        Number of functions that were called.

    Examples
    --------
    >>> equal_values_sentence([1e-16, 2.4e-12], 3)
    '2 of 3 functions give our value to 3e-12 or better.'
    """
    if n_functions == 0:
        return "No other library is installed here."
    if not differences:
        return "No function gives our value."
    count = len(differences)
    if count < n_functions:
        subject = f"{count} of {n_functions} functions"
    else:
        subject = "The only function" if count == 1 else f"All {count} functions"
    verb = "gives" if count == 1 else "give"
    return f"{subject} {verb} our value to {bound(max(differences), '.0e')} or better."
