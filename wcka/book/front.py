"""What the landing page and the report say, assembled from verdicts and numbers.

Each sentence has a case of its own for none, one, several and all, for each verdict,
and for what no run has looked at.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import yaml
from matplotlib.patches import Patch

from ..measures.spelling import listed
from . import checkout, figures, parameters, records, rules
from .claims import BEYOND, PARTS, VERDICTS, Claim, part, with_symbol
from .diff import numbers as glued_numbers
from .sentences import capitalised

NOT_SEEN = "No run has looked at this yet."
_NOT_ON_RECORD = "(This is what the present build found; no run of record did.)"
# A number that a chapter glues, {03:few-move}, or a parameter of it, {03.eps}
_NAME = re.compile(r"\{(\d\d)([:.])([\w-]+)\}")
_FACTOR = re.compile(r"\b(epoch|seed|architecture|strategy)\b")
# Colours of bars, as verdicts have them in tables, and of the counts on them
_SHADES = {
    "holds": ("#00694e", "white"),
    "partly": ("#f0b64f", "black"),
    "fails": ("#b02a00", "white"),
    "cannot be told": ("white", "black"),
}
_PHONE_WIDTH = 3.3  # inches of a figure that a phone shows without scrolling
_SHORT_PARTS = {
    "3.2 Functional similarity, trained from scratch": "3.2 Trained from scratch",
    "3.3 Functional similarity, fine-tuned on a frozen trunk": "3.3 On a frozen trunk",
}


class Evidence(NamedTuple):
    """What the chapters found, of the run of record where there is one.

    Attributes
    ----------
    claims : dict of str to Claim
        By the keys of their statements.
    recorded : frozenset of str
        Keys of the claims that are of a run of record.
    numbers : dict of str to dict
        The glued numbers, as text, by the chapter's number and their names.
    values : dict of str to dict
        The parameters, by the chapter's number and their names.
    unrecorded : frozenset of str
        Numbers that are of no run of record, such as "03:few-move".

    Examples
    --------
    >>> nothing().claims
    {}
    """

    claims: dict[str, Claim]
    recorded: frozenset[str]
    numbers: dict[str, dict[str, str]]
    values: dict[str, dict[str, object]]
    unrecorded: frozenset[str] = frozenset()


def nothing() -> Evidence:
    """Return the evidence of no chapter at all.

    Examples
    --------
    >>> nothing().recorded
    frozenset()
    """
    return Evidence({}, frozenset(), {}, {})


def all_values(chapter: Path, changed: Mapping[str, object]) -> dict[str, object]:
    """Return all parameters of a chapter, those that a run changed with their values.

    Examples
    --------
    >>> all_values(checkout.find_chapter("03"), {"seeds": 7})["seeds"]
    7
    """
    values = {}
    for name, parameter in parameters.read_parameters(chapter).items():
        values[name] = changed.get(name, parameter.default)
    return values


def gather(
    counted: Mapping[str, Sequence[Claim]], on_record: Mapping[str, Claim],
    notebooks: Mapping[str, Any],
) -> Evidence:
    """Return the evidence of executed chapters and of their records.

    Parameters
    ----------
    counted : mapping of str to sequence of Claim
        As from ``builder.with_record``.
    on_record : mapping of str to Claim
        Claims of the run of record, by their keys.
    notebooks : mapping of str to NotebookNode
        The executed chapters, by the stems of their files.

    Examples
    --------
    >>> gather({}, {}, {}) == nothing()
    True
    """
    claims_by_key = {}
    for chapter_claims in counted.values():
        for claim in chapter_claims:
            claims_by_key[claim.key] = claim
    numbers = {}
    values = {}
    unrecorded: set[str] = set()
    for stem, notebook in notebooks.items():
        chapter = stem[:2]
        record = records.read(chapter) or notebook.metadata["wcka"]["run"]
        of_build = glued_numbers(notebook)
        of_record = record.get("numbers", {})
        # A number that a chapter glues only since its record is that of this build.
        numbers[chapter] = of_build | of_record
        unrecorded |= {f"{chapter}:{name}" for name in of_build.keys() - of_record}
        changed = record["parameters"]
        values[chapter] = all_values(checkout.find_chapter(chapter), changed)
    return Evidence(claims_by_key, frozenset(on_record), numbers, values,
                    frozenset(unrecorded))


# ---------------------------------------------------------------------- parts of speech


def filled(template: str, evidence: Evidence) -> str:
    """Return a text with its numbers; an empty one if one of them is missing.

    Parameters
    ----------
    template : str
        Text with names such as ``{03:few-move}``, a number that chapter 3 glues, and
        ``{03.eps}``, a parameter of it.
    evidence : Evidence

    Examples
    --------
    >>> evidence = nothing()._replace(numbers={"02": {"floor": "0.37"}})
    >>> filled("a floor of {02:floor}", evidence), filled("{02:ceiling}", evidence)
    ('a floor of 0.37', '')
    """
    texts = {}
    for chapter, kind, name in _NAME.findall(template):
        source = evidence.numbers if kind == ":" else evidence.values
        value = source.get(chapter, {}).get(name)
        if value is None or str(value).lstrip("+-") == "nan":
            return ""
        texts[f"{{{chapter}{kind}{name}}}"] = _plain(value)
    for name, text in texts.items():
        template = template.replace(name, text)
    return template


def _plain(value: object) -> str:
    """Return the value of a parameter or a number as a reader would write it."""
    if isinstance(value, (list, tuple)):
        # A list within a list stays one: widths of the layers of one network.
        texts = [
            str(element) if isinstance(element, list) else _plain(element)
            for element in value]
        return listed(texts)
    return f"{value:,}" if isinstance(value, int) else str(value)


# ----------------------------------------------------------------------- five sentences


def headlines(evidence: Evidence) -> str:
    """Return what came out, in five sentences with their numbers, as a list in MyST.

    Examples
    --------
    >>> headlines(nothing()).splitlines()[0]
    '- **Is it calibrated?** No run has looked at this yet.'
    """
    answers_to = {
        "Is it calibrated?": calibration(evidence),
        "Does it follow behaviour?": behaviour(evidence),
        "Does that carry over to fine-tuned networks?": transfer(evidence),
        "What fools it?": fooled(evidence),
        "What is it good for?": uses(evidence),
    }
    lines = [f"- **{question}** {text}" for question, text in answers_to.items()]
    return "\n".join(lines)


def calibration(evidence: Evidence) -> str:
    """Return whether wCKA is calibrated, with the floors of all measures.

    Examples
    --------
    >>> claim = Claim("3.1", "so", "0.003", "fails", key="wcka-calibrated")
    >>> evidence = nothing()._replace(
    ...     claims={claim.key: claim}, recorded=frozenset([claim.key]))
    >>> calibration(evidence)
    '○ fails. wCKA puts neither untrained networks near 0 nor consecutive epochs of ...'
    """
    keys = ["wcka-calibrated"]
    if not _has(evidence, keys):
        return NOT_SEEN
    verdict = evidence.claims[keys[0]].verdict
    ends = "untrained networks near 0 {} consecutive epochs of one network near 1"
    opening = {
        "holds": f"wCKA puts {ends.format('and')}.",
        "partly": f"Whether wCKA puts {ends.format('and')} depends on which end one "
                  f"looks at, and on whether at means or at extremes.",
        "fails": f"wCKA puts neither {ends.format('nor')}.",
        "cannot be told": f"Whether wCKA puts {ends.format('and')} is open.",
    }[verdict]
    return _joined(
        f"{with_symbol(verdict)}. {opening}",
        filled("Untrained networks score {02:floor-wcka} by wCKA, "
               "{02:floor-procrustes} by Procrustes, {02:floor-cka} by CKA and "
               "{02:floor-dcka} by dCKA.", evidence),
        filled("With 8 inputs in place of 784, wCKA gives them {02:floor-8}.",
               evidence),
        _provenance(evidence, keys))


def behaviour(evidence: Evidence) -> str:
    """Return whether wCKA follows agreement better, for networks from scratch.

    Examples
    --------
    >>> behaviour(nothing())
    'No run has looked at this yet.'
    """
    keys = ["stronger-pearson", "higher-spearman"]
    if not _has(evidence, keys):
        return NOT_SEEN
    return _joined(
        _led(evidence, keys),
        filled("Where the training strategy differs, Procrustes on the very images "
               "that agreement is counted on has r = {03:reading-strategy-procrustes}, "
               "and wCKA, which sees no image, r = {03:reading-strategy-wcka}.",
               evidence),
        _provenance(evidence, keys))


def transfer(evidence: Evidence) -> str:
    """Return whether wCKA follows agreement better, for heads on a frozen trunk.

    Examples
    --------
    >>> transfer(nothing())
    'No run has looked at this yet.'
    """
    keys = ["consistently-higher"]
    if not _has(evidence, keys):
        return NOT_SEEN
    return _joined(_led(evidence, keys), _provenance(evidence, keys))


def fooled(evidence: Evidence) -> str:
    """Return which changes move wCKA though predictions stay.

    Examples
    --------
    >>> fooled(nothing())
    'No run has looked at this yet.'
    """
    keys = ["same-function", "chosen-chain"]
    if not _has(evidence, keys):
        return NOT_SEEN
    answered = []
    for label, answer in answers(evidence, keys):
        answered.append((_CHANGES.get(label, label), answer))
    return _joined(
        moved_sentence(answered),
        filled("In the other direction, networks that agree on a share of "
               "{06:broken-impersonated-agreement} of the images score "
               "{06:broken-impersonated}.", evidence),
        _provenance(evidence, keys))


def uses(evidence: Evidence) -> str:
    """Return what the runs recommend wCKA for.

    Examples
    --------
    >>> uses(nothing())
    'No run has looked at this yet.'
    """
    verdicts = {}
    for key, use in _USES.items():
        if key in evidence.claims:
            verdicts[use] = evidence.claims[key].verdict
    if not verdicts:
        return NOT_SEEN
    keys = [key for key in _USES if key in evidence.claims]
    kin = ""
    if "circuits-tell-kin" in evidence.claims:
        keys.append("circuits-tell-kin")
        kin = _KIN_SENTENCES[evidence.claims["circuits-tell-kin"].verdict]
    return _joined(use_sentence(verdicts), kin, _provenance(evidence, keys))


# What the parts of chapter 6's statements are called in a sentence
_CHANGES = {
    "wider": "more units",
    "deeper": "more layers",
    "border redrawn": "new weights of pixels that are always black",
    "dead units": "units that never fire",
    "all logits lifted": "one function added to all logits",
    "a random chain": "a random chain given to it by construction",
    "by gradients, away": "gradient descent on wCKA itself",
}
_USES = {
    "pruning": "ordering pruned networks by the harm done",
    "trusted": "telling faithful copies of a trusted model from changed ones",
    "ensembles": "choosing the members of an ensemble",
    "backdoors": "telling backdoored copies of a trusted model from benign ones",
}
_KIN = "CKA of the circuits of a language model"
_KIN_SENTENCES = {
    "holds": f"{_KIN} tells its relatives from strangers.",
    "partly": f"{_KIN} tells its relatives from strangers in some cases.",
    "fails": f"{_KIN} does not tell its relatives from strangers.",
    "cannot be told": f"Whether {_KIN} tells its relatives from strangers is open.",
}


def use_sentence(verdicts: Mapping[str, str]) -> str:
    """Return a sentence on uses, those of one verdict together.

    Parameters
    ----------
    verdicts : mapping of str to str
        By the use, the verdict on it; at least one.

    Examples
    --------
    >>> use_sentence({"pruning": "holds", "trust": "holds", "voting": "fails"})
    'wCKA serves for pruning and trust; it does not serve for voting.'
    """
    forms = {
        "holds": "{} serves for {}",
        "partly": "{} serves in part for {}",
        "fails": "{} does not serve for {}",
        "cannot be told": "whether {} serves for {} is open",
    }
    phrases: list[str] = []
    for verdict, form in forms.items():
        names = [use for use, of_use in verdicts.items() if of_use == verdict]
        if names:
            subject = "it" if phrases else "wCKA"
            phrases.append(form.format(subject, listed(names)))
    return capitalised(f"{'; '.join(phrases)}.")


def moved_sentence(answered: Sequence[tuple[str, str]]) -> str:
    """Return a sentence on the changes that move wCKA.

    Parameters
    ----------
    answered : sequence of (str, str)
        Of each change its name, and the answer to: it hardly moves wCKA.

    Examples
    --------
    >>> moved_sentence([("a deeper network", "yes"), ("lifted logits", "no")])
    'Of 2 changes that keep predictions, all or nearly all, one moves wCKA ...'
    """
    moving = [name for name, answer in answered if answer == rules.NO]
    undecided = [name for name, answer in answered if answer == rules.OPEN]
    total = len(answered)
    subject = "changes that keep predictions, all or nearly all"
    if not moving:
        text = f"None of {total} {subject}, is known to move wCKA noticeably"
    elif len(moving) == total:
        text = f"All {total} {subject}, move wCKA noticeably: {listed(moving)}"
        if total == 1:
            text = f"The one change that keeps predictions moves wCKA: {moving[0]}"
    elif len(moving) == 1:
        text = f"Of {total} {subject}, one moves wCKA noticeably: {moving[0]}"
    else:
        text = (f"Of {total} {subject}, {len(moving)} move wCKA noticeably: "
                f"{listed(moving)}")
    if undecided:
        text += f"; for {listed(undecided)} that is open"
    return f"{text}."


def lead_sentence(answered: Sequence[tuple[str, str]]) -> str:
    """Return a sentence that counts where wCKA's correlation is significantly higher.

    Parameters
    ----------
    answered : sequence of (str, str)
        Of each comparison its label, in which a factor stands, and the answer to: wCKA
        leads.

    Examples
    --------
    >>> lead_sentence([("CKA (seed)", "yes"), ("dCKA (seed)", "open")])
    'wCKA correlates with agreement significantly more strongly than its rivals ...'
    """
    counts = Counter(answer for _, answer in answered)
    total, leads = len(answered), counts[rules.YES]
    where = f"in all {total} comparisons"
    if total == 1:
        where = "in the one comparison" if leads else "not in the one comparison"
    elif leads == 0:
        where = f"in none of {total} comparisons"
    elif leads < total:
        number = "one" if leads == 1 else str(leads)
        where = f"in {number} of {total} comparisons ({_by_factor(answered)})"
    text = ("wCKA correlates with agreement significantly more strongly than its "
            f"rivals {where}")
    rest = []
    if counts[rules.NO]:
        rest.append(_count_of(counts[rules.NO], "shows", "show", "no noticeable lead"))
    if counts[rules.OPEN]:
        rest.append(_count_of(counts[rules.OPEN], "is", "are", "open"))
    if rest:
        text += f"; {listed(rest)}"
    return f"{text}."


def _count_of(count: int, singular: str, plural: str, what: str) -> str:
    """Return a clause with a count as its subject."""
    return f"one {singular} {what}" if count == 1 else f"{count} {plural} {what}"


def _by_factor(answered: Sequence[tuple[str, str]]) -> str:
    """Return by factor how many comparisons wCKA leads, those with none left out."""
    totals = Counter[str]()
    leads = Counter[str]()
    for label, answer in answered:
        match = _FACTOR.search(label)
        factor = match[1] if match else label
        totals[factor] += 1
        leads[factor] += answer == rules.YES
    phrases = []
    for factor, total in totals.items():
        if leads[factor]:
            phrases.append(f"{factor} {leads[factor]} of {total}")
    return ", ".join(phrases)


def answers(evidence: Evidence, keys: Iterable[str]) -> list[tuple[str, str]]:
    """Return the labels of all parts of statements, each with its answer.

    Parameters
    ----------
    evidence : Evidence
        With the claims of these statements; those of their families are looked at, too,
        since answers are corrected for the number of parts in a family.
    keys : iterable of str
        Keys of the statements.

    Returns
    -------
    list of (str, str)
        Label, and "yes", "no" or "open".

    Examples
    --------
    >>> claim = Claim("3.2", "so", "", "holds", key="linear",
    ...               parts=[["CKA (seed)", 0.5, 0.01, 30.0, ""]])
    >>> answers(nothing()._replace(claims={"linear": claim}), ["linear"])
    [('CKA (seed)', 'yes')]
    """
    statements = {}
    findings = {}
    for key, statement in rules.all_statements().items():
        if key in evidence.claims:
            parts = [rules.Part(*values) for values in evidence.claims[key].parts]
            statements[key] = statement
            findings[key] = rules.Finding(parts)
    of_parts = rules.answer_parts(statements, findings)
    pairs = []
    for key in keys:
        for of_part, answer in zip(findings[key].parts, of_parts[key]):
            pairs.append((of_part.label, answer))
    return pairs


def _led(evidence: Evidence, keys: Sequence[str]) -> str:
    """Return the verdict on wCKA's leads, and the sentence that counts them."""
    answered = answers(evidence, keys)
    of_parts = [answer for _, answer in answered]
    verdict = rules.fold(of_parts)
    known = rules.known_so_far(of_parts)
    told = f"So {known}." if known else ""
    return _joined(f"{with_symbol(verdict)}. {lead_sentence(answered)}", told)


def _has(evidence: Evidence, keys: Iterable[str]) -> bool:
    """Tell whether there are claims on all of these statements."""
    return all(key in evidence.claims for key in keys)


def _provenance(evidence: Evidence, keys: Iterable[str]) -> str:
    """Return a remark if some of these claims are of no run of record."""
    on_record = all(key in evidence.recorded for key in keys)
    return "" if on_record else _NOT_ON_RECORD


def _joined(*sentences: str) -> str:
    """Return sentences in one line, without those that are empty."""
    return " ".join(sentence for sentence in sentences if sentence)


# ----------------------------------------------------------------------------- a figure


def verdicts_by_part(claims: Iterable[Claim]) -> dict[str, Counter]:
    """Return how many claims have each verdict, by part of the paper.

    Parts without any claim are left out.

    Examples
    --------
    >>> counts = verdicts_by_part([Claim("3.1", "so", "0.9", "holds")])
    >>> counts["3.1 Calibration"]["holds"]
    1
    """
    counts: dict[str, Counter] = {name: Counter() for name in PARTS}
    for claim in claims:
        counts[part(claim.where)][claim.verdict] += 1
    return {name: count for name, count in counts.items() if count}


def draw_verdicts(claims: Sequence[Claim], path: Path) -> None:
    """Draw stacked bars of verdicts by part of the paper, with their counts.

    Parameters
    ----------
    claims : sequence of Claim
        At least one.
    path : Path
        The svg.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "verdicts.svg")
    ...     draw_verdicts([Claim("3.1", "so", "0.9", "holds")], path)
    ...     path.read_text()[:5]
    '<?xml'
    """
    counts = verdicts_by_part(claims)
    figures.style()
    fig, axes = plt.subplots(figsize=(_PHONE_WIDTH, 0.9 + 0.42 * len(counts)))
    for row, of_part in enumerate(counts.values()):
        left = 0
        for verdict, (shade, ink) in _SHADES.items():
            count = of_part[verdict]
            if count:
                axes.barh(row, count, left=left, height=0.72, color=shade,
                          edgecolor=figures.QUIET, linewidth=0.8)
                axes.text(left + count / 2, row, str(count), va="center", ha="center",
                          fontsize=10, color=ink)
            left += count
    labels = [fill(_SHORT_PARTS.get(name, name), 20) for name in counts]
    axes.set_yticks(range(len(counts)), labels)
    axes.invert_yaxis()
    axes.set(xticks=[], xlim=(0, max(sum(count.values()) for count in counts.values())))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    handles = [
        Patch(facecolor=shade, edgecolor=figures.QUIET, label=with_symbol(verdict))
        for verdict, (shade, _) in _SHADES.items()]
    fig.legend(handles=handles, loc="outside upper left", ncols=2)
    fig.savefig(path, metadata={"Date": None})
    plt.close(fig)


def verdict_figure(claims: Sequence[Claim], tally: str) -> str:
    """Return the figure of verdicts with its alternative text and caption, as MyST.

    Parameters
    ----------
    claims : sequence of Claim
    tally : str
        Sentences that count them.

    Examples
    --------
    >>> text = verdict_figure([Claim("3.1", "so", "0.9", "holds")], "All hold.")
    >>> text.splitlines()[1]
    ':alt: Stacked bars of verdicts. 3.1 Calibration: 1 holds, 0 partly, ...'
    >>> verdict_figure([], "No claim was tested.")
    'No claim was tested.'
    """
    if not claims:
        return tally
    rows = []
    for name, count in verdicts_by_part(claims).items():
        numbers = [f"{count[verdict]} {verdict}" for verdict in VERDICTS]
        rows.append(f"{name}: {', '.join(numbers)}")
    return "\n".join([
        "```{figure} figures/verdicts.svg",
        f":alt: Stacked bars of verdicts. {'; '.join(rows)}.",
        ":name: fig-verdicts",
        "",
        f"Verdicts by section of the paper; the last bar is of networks and questions "
        f"that it does not speak of. {tally} {{doc}}`scorecard` has each with its "
        f"numbers.",
        "```",
    ])


def of_paper(claims: Iterable[Claim]) -> list[str]:
    """Return the verdicts of the claims that are the paper's.

    Examples
    --------
    >>> of_paper([Claim("3.1", "so", "", "holds"), Claim("beyond", "so", "", "fails")])
    ['holds']
    """
    return [claim.verdict for claim in claims if part(claim.where) != BEYOND]


def beyond_paper(claims: Iterable[Claim]) -> list[str]:
    """Return the verdicts of the claims that go beyond the paper.

    Examples
    --------
    >>> beyond_paper([Claim("beyond, as 3.1", "so", "", "fails")])
    ['fails']
    """
    return [claim.verdict for claim in claims if part(claim.where) == BEYOND]


# --------------------------------------------------------------------------- the report


def open_choices() -> list[dict]:
    """Return what the paper leaves open, from ``book/open-choices.yml``.

    Returns
    -------
    list of dict
        Texts "open" and "took"; "matters", a list of them with numbers to be filled in;
        "try", the options of a run that would tell.

    Examples
    --------
    >>> sorted(open_choices()[0])
    ['matters', 'open', 'took', 'try']
    """
    path = checkout.ROOT / "book" / "open-choices.yml"
    entries = yaml.safe_load(path.read_text("utf-8"))
    for entry in entries:
        entry.setdefault("matters", [])
        entry.setdefault("try", "")
    return entries


def choice_table(evidence: Evidence) -> str:
    """Return the table of what the paper leaves open, as MyST.

    A dagger marks sentences with a number that is of no run of record.

    Examples
    --------
    >>> lines = choice_table(nothing()).splitlines()
    >>> lines[0]
    '| The paper leaves open | We took | Does it matter? |'
    >>> sum("not measured" in line for line in lines) > 10
    True
    """
    lines = ["| The paper leaves open | We took | Does it matter? |",
             "| :--- | :--- | :--- |"]
    for entry in open_choices():
        measured = []
        for template in entry["matters"]:
            sentence = filled(template, evidence)
            if not sentence:
                continue
            names = {"".join(match) for match in _NAME.findall(template)}
            if names & evidence.unrecorded:
                sentence += " †"
            measured.append(sentence)
        text = " ".join(measured) or "not measured"
        if not measured and entry["try"]:
            text += f" (`python -m wcka run {entry['try']}` would tell)"
        took = filled(entry["took"], evidence) or entry["took"]
        lines.append(f"| {entry['open']} | {took} | {text} |")
    return "\n".join(lines)


def needs_table(chapters: Sequence[str]) -> str:
    """Return what the runs of record took, as MyST.

    Parameters
    ----------
    chapters : sequence of str
        Stems of the chapters' files.

    Examples
    --------
    >>> needs_table(["99-none"])
    'No chapter has a run of record yet.'
    """
    lines = []
    for stem in chapters:
        record = records.read(stem[:2])
        if record is not None:
            minutes = record["seconds"] / 60
            lines.append(f"| {{doc}}`../notebooks/{stem}` | {minutes:.1f} | "
                         f"{record['machine']} |")
    if not lines:
        return "No chapter has a run of record yet."
    return "\n".join(
        ["| chapter | minutes | machine |", "| :--- | ---: | :--- |", *lines])
