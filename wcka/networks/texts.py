"""Text that comes with Python, as pieces of words: what small language models learn."""

import re
import sysconfig
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from pydoc_data import topics

import torch
from torch import Tensor

from ..measures.spelling import nearest

TEXTS = ("documentation", "code")
# Modules of the standard library that are long, and one file in every version of Python
_MODULES = (
    "argparse", "difflib", "doctest", "inspect", "mailbox", "optparse", "pdb",
    "pickletools", "pydoc", "subprocess", "tarfile", "typing")
_PIECE = re.compile(r" ?[A-Za-z]+| ?\d| ?[^\sA-Za-z\d]|\s")


@lru_cache(len(TEXTS))
def text(name: str) -> str:
    """Return a text that comes with Python.

    Parameters
    ----------
    name : str
        One of ``TEXTS``: "documentation", the reference that Python's ``help`` shows,
        in English; or "code", modules of the standard library.

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> "def " in text("code")
    True
    """
    nearest(name, TEXTS, "text")
    if name == "documentation":
        sections = topics.topics
        return "\n".join(sections[title] for title in sorted(sections))
    folder = Path(sysconfig.get_path("stdlib"))
    files = [folder / f"{module}.py" for module in _MODULES]
    contents = [file.read_text("utf-8") for file in files if file.is_file()]
    return "\n".join(contents)


class Vocabulary:
    """Pieces of words that are tokens: the most frequent ones, and all characters.

    Parameters
    ----------
    texts : sequence of str
        What pieces are counted in.
    size : int
        Number of tokens.

    Attributes
    ----------
    tokens : list of str
        By their numbers. The last one stands for characters that are in no text.

    Raises
    ------
    ValueError
        If the texts have more characters than the vocabulary has places.

    Examples
    --------
    >>> vocabulary = Vocabulary(["to be or not to be"], 14)
    >>> [vocabulary.tokens[number] for number in vocabulary.encode("to be")]
    ['to', ' be']
    """

    def __init__(self, texts: Sequence[str], size: int) -> None:
        pieces = Counter[str]()
        characters = set()
        for content in texts:
            pieces.update(_PIECE.findall(content))
            characters |= set(content)
        if len(characters) >= size:
            raise ValueError(
                f"size: wanted more than {len(characters)}, the number of characters, "
                f"got {size}")
        tokens = sorted(characters)
        # Of pieces that are as frequent, the first in alphabetical order
        for piece, _ in sorted(pieces.items(), key=lambda item: (-item[1], item[0])):
            if len(tokens) == size - 1:
                break
            if len(piece) > 1:
                tokens.append(piece)
        self.tokens = [*tokens, "�"]
        self._numbers = {token: number for number, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, content: str) -> Tensor:
        """Return the numbers of a text's tokens, (tokens,)."""
        unknown = len(self.tokens) - 1
        numbers = []
        for piece in _PIECE.findall(content):
            if piece in self._numbers:
                numbers.append(self._numbers[piece])
            else:
                for character in piece:
                    numbers.append(self._numbers.get(character, unknown))
        return torch.tensor(numbers)


@lru_cache(4)
def vocabulary(size: int) -> Vocabulary:
    """Return the vocabulary of all ``TEXTS`` together.

    Examples
    --------
    >>> len(vocabulary(600))
    600
    """
    return Vocabulary([text(name) for name in TEXTS], size)


@lru_cache(8)
def encoded(name: str, size: int) -> Tensor:
    """Return a text as the numbers of its tokens, (tokens,).

    Parameters
    ----------
    name : str
        One of ``TEXTS``.
    size : int
        Number of tokens in the vocabulary.

    Examples
    --------
    >>> encoded("documentation", 600).ndim
    1
    """
    return vocabulary(size).encode(text(name))
