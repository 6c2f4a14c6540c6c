"""Which tokens two transformers have in common, by the files of their tokenizers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .messages import counted

# Fewer tokens than this say nothing about two networks.
_FEWEST = 50


def vocabulary_beside(path: str | Path) -> dict[str, int] | None:
    """Return the rows of tokens by their strings, from the tokenizer in a folder.

    Parameters
    ----------
    path : str or Path
        A folder with ``tokenizer.json``, ``vocab.json`` or ``vocab.txt``, or a file in
        such a folder.

    Returns
    -------
    dict of str to int
        None where none of these is there, or readable.

    Examples
    --------
    >>> vocabulary_beside("nowhere") is None
    True
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    readers = {
        "tokenizer.json": _of_tokenizer, "vocab.json": _of_json, "vocab.txt": _of_lines}
    for name, read in readers.items():
        try:
            vocabulary = read((folder / name).read_text("utf-8"))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
        if vocabulary:
            return vocabulary
    return None


def _of_tokenizer(text: str) -> dict[str, int]:
    """Read a file of the library tokenizers: its model, and the tokens added to it."""
    content: Any = json.loads(text)
    entries = content["model"]["vocab"]
    if isinstance(entries, list):  # of a unigram model: tokens with their scores
        entries = {entry[0]: row for row, entry in enumerate(entries)}
    rows = {str(token): int(row) for token, row in entries.items()}
    for token in content.get("added_tokens", []):
        rows[str(token["content"])] = int(token["id"])
    return rows


def _of_json(text: str) -> dict[str, int]:
    entries: Any = json.loads(text)
    return {str(token): int(row) for token, row in entries.items()}


def _of_lines(text: str) -> dict[str, int]:
    if not text:
        return {}
    # Not splitlines(): a token may be one of the other characters that part lines.
    return {token: row for row, token in enumerate(text.rstrip("\n").split("\n"))}


def shared_rows(
    vocabularies: Sequence[dict[str, int] | None], counts: Sequence[int]
) -> tuple[list[Sequence[int]], str]:
    """Return the rows of the tokens that all networks have, and a note on them.

    Parameters
    ----------
    vocabularies : sequence of dict or None
        Of each network the rows by token, where they are known.
    counts : sequence of int
        The number of rows of each network.

    Returns
    -------
    rows : list
        Of each network the rows of the shared tokens, in one order.
    note : str
        What was found, or assumed.

    Raises
    ------
    ValueError
        If the networks have different numbers of rows and some vocabulary is not known,
        or if they share too few tokens.

    Examples
    --------
    >>> shared_rows([None, None], [100, 100])[1]
    '100 rows each, taken for the same tokens in the same order'
    """
    known = [vocabulary for vocabulary in vocabularies if vocabulary is not None]
    if len(known) < len(vocabularies):
        if any(vocabulary != known[0] for vocabulary in known):
            raise ValueError(
                "their tokenizers differ, and not all have one: nothing says what are "
                "the same tokens")
        if len(set(counts)) > 1:
            raise ValueError(
                f"they have {' and '.join(f'{n:,}' for n in dict.fromkeys(counts))} "
                f"rows, and not all have a tokenizer.json, vocab.json or vocab.txt, "
                f"which would say what are the same tokens")
        rows: list[Sequence[int]] = [range(count) for count in counts]
        note = f"{counts[0]:,} rows each, taken for the same tokens in the same order"
        return rows, note
    shared = []
    for token, row in known[0].items():
        is_in_all = row < counts[0]
        for vocabulary, count in zip(known[1:], counts[1:]):
            is_in_all = is_in_all and vocabulary.get(token, count) < count
        if is_in_all:
            shared.append(token)
    if len(shared) < min(_FEWEST, *map(len, known)):
        raise ValueError(
            f"they have only {counted(len(shared), 'token')} in common")
    shared.sort(key=known[0].__getitem__)
    rows = [[vocabulary[token] for token in shared] for vocabulary in known]
    sizes = [len(vocabulary) for vocabulary in known]
    if set(sizes) == {len(shared)}:
        return rows, f"{counted(len(shared), 'token')}, the same in all"
    smallest, largest = min(sizes), max(sizes)
    return rows, (
        f"{len(shared):,} tokens that all have, matched by their strings, of "
        f"{smallest:,} to {largest:,}")
