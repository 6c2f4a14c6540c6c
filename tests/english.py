"""What keeps a text from being a sentence."""

import re

# Verbs that stand behind a number: of one thing, and of several
VERBS = {
    "holds": "hold", "fails": "fail", "is": "are", "moves": "move", "shows": "show",
    "gives": "give", "takes": "take", "puts": "put", "follows": "follow",
}


def faults_of(text):
    """Return what keeps a text from being one or several sentences."""
    faults = []
    if not re.match(r"[A-Z\d]|[wd]CKA\b|[ρr] ", text):
        faults.append("begins with a small letter")
    if not text.endswith("."):
        faults.append("ends without a full stop")
    if re.search(r"\s\s|\s[.,;:)]|\(\s|[,;:]\.|\.\.|\(\)|[{}]", text):
        faults.append("has a gap or an empty list")
    if re.search(r"\bNone\b(?! of)|\bnan\b", text):
        faults.append("has no value")
    if re.search(r"\b(\w+)\s+\1\b", text, re.I):
        faults.append("says a word twice")
    if re.search(r"\b(for|than|in|by|with|on|and|of|to)[.,;]", text):
        faults.append("breaks off")
    if re.search(r"\d%", text):
        faults.append("has no space before a percent sign")
    for singular, plural in VERBS.items():
        # "1 of 3 functions gives": the number at the head decides.
        number = r"\b(?<!of ){}(?: of \d+(?: \w+)+?)? {}\b"
        if re.search(number.format("(?:1|[Oo]ne)", plural), text):
            faults.append(f"one {plural}")
        if re.search(number.format(r"(?:[02-9]|\d\d+)", singular), text):
            faults.append(f"several {singular}")
    return faults
