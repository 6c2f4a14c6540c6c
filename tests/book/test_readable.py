"""Chapters that can be finished: their length, figures, exercises and sentences."""

import re
import shlex

import nbformat
import pytest

from wcka.book import checkout, parameters

MOST_WORDS = 2000
MOST_SHOWN = 6  # figures and tables that are visible without a click
EXERCISES = (2, 3)
ANSWER = "Show the answer"
FOLDED = {"remove-cell", "remove-output", "hide-cell", "hide-output"}

of_all_chapters = pytest.mark.parametrize(
    "path", checkout.chapters(), ids=lambda path: path.stem)


def tags_of(cell):
    return set(cell.metadata.get("tags", []))


def prompt_of(cell):
    return cell.metadata.get("mystnb", {}).get("code_prompt_show", "")


def plain(text):
    """Return the words of MyST: no formulas on lines of their own, code or markup.

    A formula within a sentence, and a number that is glued into it, are a word each.
    """
    text = re.sub(r"\$\$.*?\$\$(\s*\([\w-]+\))?", " ", text, flags=re.S)
    # Fences and options of directives, whose content is text; blocks of code are not.
    text = re.sub(r"^```(bash|python|text)?$.*?^```$", " ", text, flags=re.M | re.S)
    text = re.sub(r"^(```|:{3,}|:\w+:).*$", " ", text, flags=re.M)
    text = re.sub(r"\{glue:text\}`[^`]*`", "GLUED", text)
    text = re.sub(r"\{[\w:]+\}`([^`<]*)[^`]*`", r"\1", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.sub(r"\$[^$]+\$", "FORMULA", text)


def number_of_words(text):
    return len(re.findall(r"\S*\w\S*", plain(text)))


# --------------------------------------------------------------- the head, the length


@of_all_chapters
def test_a_paragraph_at_the_head_says_what_came_out(path):
    first = checkout.read_chapter(path).cells[0].source
    pattern = (
        r"# [^\n]+\n\n```\{admonition\} In one paragraph\n:class: tip\n(.*?)\n```\n")
    head = re.match(pattern, first, re.S)
    assert head, "wanted the title, then the admonition of class tip"
    n_sentences = len(sentences(head[1]))
    assert 3 <= n_sentences <= 5, sentences(head[1])
    assert "{glue:text}" in head[1], "wanted results that are glued"


@of_all_chapters
def test_a_chapter_can_be_finished(path):
    words = 0
    for cell in checkout.read_chapter(path).cells:
        if cell.cell_type == "markdown":
            words += number_of_words(cell.source)
    assert words <= MOST_WORDS, f"{words} words, wanted at most {MOST_WORDS}"


def shown_in(cell):
    """Return the figures and tables that a cell of an executed chapter shows."""
    if cell.cell_type == "markdown":
        return re.findall(r"^\|[ :|-]+\|$", cell.source, re.M)
    if FOLDED & tags_of(cell):
        return []
    shown = []
    for output in cell.outputs:
        data = output.get("data", {})
        html = "".join(data.get("text/html", ""))
        is_image = any(kind.startswith("image/") for kind in data)
        is_table = "<table" in html and "class='claims'" not in html
        if is_image or is_table:
            shown.append(output)
    return shown


@of_all_chapters
def test_at_most_six_figures_and_tables_are_visible(path, smoke):
    visible = []
    for cell in nbformat.read(smoke(path), 4).cells:
        if cell.id != "what-ran":
            visible += [cell.source[:300] for _ in shown_in(cell)]
    listing = "\n----\n".join(visible)
    assert len(visible) <= MOST_SHOWN, f"{len(visible)} are visible:\n{listing}"


def is_visible(cell):
    return not tags_of(cell) & {"remove-cell", "hide-cell"}


@of_all_chapters
def test_every_figure_is_followed_by_the_text_that_reads_it(path):
    cells = [cell for cell in checkout.read_chapter(path).cells if is_visible(cell)]
    for cell, next_cell in zip(cells, cells[1:]):
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure and not FOLDED & tags_of(cell):
            name = figure["name"]
            assert next_cell.cell_type == "markdown", f"code behind {name}"
            assert not next_cell.source.startswith("#"), f"a heading behind {name}"


def test_words_are_those_of_the_text():
    assert number_of_words("# One, *two*\n\n- {term}`three four <three>`") == 4
    assert number_of_words("$x + y$ is {glue:text}`a-b` %") == 3
    assert number_of_words("See [the page](there.md).\n\n$$\na + b\n$$ (eq-x)") == 3
    assert number_of_words("```{admonition} A b\n:class: tip\nOne.\n```") == 1
    assert number_of_words("Run\n\n```bash\npython -m wcka run 01\n```\n") == 1


def test_sentences_are_told_apart():
    text = "# Title\n\nOne is 0.5. Two is `x`; three: four.\n\n- Five\n- Six? Seven."
    assert sentences(text) == [
        "One is 0.5.", "Two is `x`; three: four.", "Five", "Six?", "Seven."]
    glued = "{glue:text}`a`\n{glue:text}`b` Then {glue:text}`c` more. {glue:text}`d`"
    assert sentences(glued) == ["GLUED", "GLUED", "Then GLUED more.", "GLUED"]


# ------------------------------------------------------------------------- exercises


def exercises_of(path):
    """Return the exercises of a chapter: the text of each, and its folded answer."""
    exercises = []
    text = None
    for cell in checkout.read_chapter(path).cells:
        if cell.cell_type == "markdown":
            if text is not None:
                text += f"\n{cell.source}"
            if "## Exercises" in cell.source:
                text = cell.source.partition("## Exercises")[2]
            if "## To take away" in cell.source:
                break
        elif text is not None and prompt_of(cell) == ANSWER:
            exercises.append((text, cell))
            text = ""
    return exercises


def runs_in(text):
    """Return the calls of ``python -m wcka run`` in a text, as lists of words."""
    calls = re.findall(r"python -m wcka run ([^`\n]+)", text)
    return [shlex.split(call) for call in calls]


@of_all_chapters
def test_exercises_have_a_question_a_larger_run_and_a_folded_answer(path):
    text = "\n".join(
        cell.source for cell in checkout.read_chapter(path).cells
        if cell.cell_type == "markdown")
    headings = re.findall("^## .*$", text, re.M)
    assert "## Exercises" in headings
    assert headings.index("## Exercises") + 1 == headings.index("## To take away")
    exercises = exercises_of(path)
    assert EXERCISES[0] <= len(exercises) <= EXERCISES[1]
    for question, answer in exercises:
        assert "?" in question
        assert "hide-cell" in tags_of(answer)
        assert len(runs_in(question)) == 1, question


@of_all_chapters
def test_the_larger_runs_of_exercises_have_parameters_that_the_chapter_takes(path):
    for question, _ in exercises_of(path):
        for number, *words in runs_in(question):
            assert number == path.stem[:2]
            profile = "quick"
            assignments = []
            while words:
                option = words.pop(0)
                assert option in ("-p", "--profile"), option
                if option == "-p":
                    assignments.append((words.pop(0), words.pop(0)))
                else:
                    profile = words.pop(0)
            values = parameters.choose(path, profile, assignments)
            assert values, "wanted other values than the defaults"
            parameters.vet(path, values)


@of_all_chapters
def test_the_answers_of_exercises_are_computed(path, smoke):
    n_answers = 0
    for cell in nbformat.read(smoke(path), 4).cells:
        if cell.cell_type == "code" and prompt_of(cell) == ANSWER:
            n_answers += 1
            assert cell.outputs, f"an answer that shows nothing:\n{cell.source}"
    assert n_answers == len(exercises_of(path))


# ------------------------------------------------------------------------- sentences


# Words of a sentence that claims an outcome; "at most" and "at least" are limits
OUTCOME = re.compile(
    r"\b(higher|highest|lower|lowest|ahead|better|best|worse|worst|stronger|strongest"
    r"|weaker|weakest|closer|closest|wins?|won|beats?|beaten|outperform\w*|exceeds?"
    r"|none|nor (?:did|do|does|is|are|was|were)|(?<!at )most|(?<!at )least)\b", re.I)

# Sentences with such a word that claim no outcome, by the number of the chapter, each
# by its beginning, and the reason.
ALLOWED = {
    "02": {
        "groger2026, who introduced this score": "what the cited work reports",
        "In the lower row there are more of them": "which pair is taken",
    },
}


def sentences(text):
    """Return the sentences of a text, those of lists and table cells among them."""
    parts = re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.)\s|\|", plain(text), flags=re.M)
    found = []
    for part in parts:
        if part.startswith("#"):
            continue
        line = " ".join(part.split())
        split = re.split(r"(?<=[.?!])[*_)\"]*\s+(?=[A-Z*_(\"`])", line)
        for sentence in split:
            # What begins with glued results and goes on with a capital letter, or ends,
            # begins with whole sentences.
            while match := re.match(r"GLUED (?=[A-Z\[*])", sentence):
                found.append(match[0].strip())
                sentence = sentence[match.end():]
            found.append(sentence)
    return [sentence for sentence in found if re.search(r"\w", sentence)]


def outcomes_of(path):
    """Return sentences that claim an outcome and hold no glued result.

    Of the text behind the first cell that computes. Questions claim nothing.
    """
    claiming = []
    has_checks = False
    has_results = False
    for cell in checkout.read_chapter(path).cells:
        if cell.cell_type == "code":
            has_results = has_results or has_checks
            has_checks = has_checks or "checks" in tags_of(cell)
        elif has_results:
            for sentence in sentences(cell.source):
                is_question = sentence.endswith("?")
                is_glued = "GLUED" in sentence
                if OUTCOME.search(sentence) and not (is_question or is_glued):
                    claiming.append(sentence)
    return claiming


@of_all_chapters
def test_sentences_that_claim_an_outcome_are_glued_or_explained(path):
    allowed = ALLOWED.get(path.stem[:2], {})
    unexplained = []
    beginnings = set()
    for sentence in outcomes_of(path):
        reasons = [start for start in allowed if sentence.startswith(start)]
        beginnings.update(reasons)
        if not reasons:
            unexplained.append(sentence)
    listing = "\n- ".join(unexplained)
    assert not unexplained, f"claim an outcome without a glued result:\n- {listing}"
    assert set(allowed) == beginnings, "sentences that are explained and not there"
    assert all(allowed.values())
