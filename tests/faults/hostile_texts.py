"""Texts that a stranger could send: values, names, profiles and notebooks."""

import json
import math

from wcka.book import diff

# What a terminal takes for a command: its window gets another title
ESCAPE = "\x1b]0;owned\x07"

FORGED = [
    f"{ESCAPE}fc", "fc\nwcka: all files are identical", "a\rb", "\x9b31mred",
    "\x08\x08",
    "\u202egnp", "\u2066a", "\u200b", "\0", "\x7f", "\u2028", "\ud800", "\udc80",
    "é", "名前", "😀", "NaN", "null", "Infinity", '"', "\\", "\\x1b", "{}", "a" * 300]


# ----------------------------------------------------------------- values of parameters


MARKER = "executed"
CODE = f"open('{MARKER}', 'w')"
VALUES = [
    # Nothing much
    "", " ", "\n", "\t", "\0", ESCAPE, "\u202e", "\u200b", "\ud800", "\ufeff1", "\\",
    "'", '"""', "#", "%s%n", "None", "...", "True", "False", "NaN", "nan", "inf",
    "-inf",
    # Numbers that are none, or too many
    "0", "-0", "-1", "1.", ".5", "1e3", "1e400", "-1e400", "1e-400", "-0.0", "0x10",
    "0b1", "1_000", "1j", "²", "½", "١٢", "１２", " 1", "1 ", "1 # x", "1;2", "1\n2",
    "9" * 30, "1" + "0" * 400, "-1" + "0" * 400, "1" + "0" * 5000, "9" * 100_000,
    "-" * 100_000 + "1", "+" * 3000 + "1", "1+" * 100_000 + "1", "~" * 3000 + "1",
    "not " * 50_000 + "1", "1" + "e9" * 9, "2**99999999", "1<<99999999",
    # Texts
    "b'1'", "'1'", "f'{1}'", "'\\x1b[31m'", "'\\ud800'", "'\\N{BULLET}'",
    "a" * 1_000_000,
    "'" + "a" * 1_000_000 + "'", "'a' * 9999999999", "mnist\0", "mnist\n", "MNIST",
    "../../etc/passwd", "cuda", "cuda:99", "meta", "tcp://", f"tcp://{ESCAPE}",
    "x://" + "y" * 10_000,
    # Lists
    "[]", "[[]]", "[[[]]]", "[1]", "[0, 0]", "[-1]", "[1, 'a']", "[True]", "[1.5]",
    "[nan]", "[None]", "{[1]}", "{[1]: 2}", "[1, [2]]", "[[1], 2]", "[[1, 2], [3]]",
    "[['a']]", "['a']",
    "['\\x1b']", "[1" + "0" * 400 + "]", "[1]*9999999999", "(1,)", "{1}", "{1: 2}",
    "[" * 1000, "[" * 100_000, "[" * 90 + "]" * 90, "[" * 5000 + "]" * 5000,
    "[" + "1," * 20_000 + "1]", "[" + "'a'," * 20_000 + "'a']",
    "[" + "[1]," * 20_000 + "[1]]",
    # Code
    CODE, f"[{CODE}]", f"__import__('os').mkdir('{MARKER}')", f"lambda: {CODE}",
    f"[x for x in [{CODE}]]", f"exec({CODE!r})", f"f'{{{CODE}}}'", "os.system",
    f"$(touch {MARKER})", f"`touch {MARKER}`", f"; touch {MARKER}",
    f"{{{{ {CODE} }}}}", f"{{% {CODE} %}}",
    f"!!python/object/apply:os.mkdir [{MARKER}]",
]

NAMES = ["", "\0", ESCAPE, "a\nb", "seed ", "Seed", "seed.__class__", "__class__",
          "self",
         "\ud800", "\u202e", "x" * 100_000, "1", "None", "seed=1", "-p", "import os"]


# ------------------------------------------------------------------ profiles


def laughs(levels=12, width=10):
    """Return YAML whose aliases stand for as many values as width to the levels."""
    lines = ["07: &a0 [1]"]
    for level in range(1, levels):
        aliases = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"x{level}: &a{level} [{aliases}]")
    return "\n".join(lines)


def laughs_within(form, levels=12, width=10):
    """Return a profile whose one parameter is such a tree of aliases."""
    text = form.format("1")
    for level in range(levels):
        aliases = ", ".join([f"*a{level}"] * width)
        text = f"[&a{level} {text}, {form.format(aliases)}]"
    return f"07: {{names: {text}}}"


def merges(levels=12, width=10):
    """Return a profile that merges mappings of mappings."""
    text = "{seeds: 9}"
    for level in range(levels):
        aliases = ", ".join([f"*m{level}"] * width)
        text = f"{{k{level}: &m{level} {text}, <<: [{aliases}]}}"
    return f"07: {text}"


PROFILES = {
    "billion laughs": laughs(), "laughs in a list": laughs_within("[{}]"),
    "laughs as a chapter": f"07: {laughs_within('[{}]').partition('names: ')[2][:-1]}",
    "merges": merges(), "merge of itself": "07: &a {<<: *a, seeds: 9}",
    "alias of itself": "07: &a [*a]", "key of itself": "07: &a {*a : 1}",
    "alias unknown": "07: *a", "alias late": "07: *a\n08: &a {}",
    "anchor twice": "07: &a {seeds: &a 9, names: *a}",
    "call": f"07: !!python/object/apply:os.mkdir ['{MARKER}']",
    "call in a value": f"07: {{seeds: !!python/object/apply:os.mkdir ['{MARKER}']}}",
    "call as a key": f"? !!python/object/apply:os.mkdir ['{MARKER}']\n: {{seeds: 9}}",
    "object": "07: {seeds: !!python/object:os.stat_result {}}",
    "name": "07: {seeds: !!python/name:os.system ''}",
    "module": "07: {seeds: !!python/module:antigravity ''}",
    "tuple": "07: {names: !!python/tuple [1, 2]}", "unknown tag": "07: {seeds: !x 1}",
    "local tag": "07: !x {seeds: 9}", "tag of a URL": "07: {seeds: !<http://x> 1}",
    "integer of nothing": "07: {seeds: !!int ''}",
    "integer of text": "07: {seeds: !!int x}",
    "float of nothing": "07: {rate: !!float ''}",
    "truth of text": "07: {fast: !!bool x}",
    "date of text": "07: {seeds: !!timestamp x}", "binary": "07: {kind: !!binary '@'}",
    "binary letters": "07: {kind: !!binary é}", "set": "07: {names: !!set {1, 2}}",
    "pairs": "07: {names: !!pairs [1: 2]}", "ordered": "07: !!omap [seeds: 9]",
    "date": "07: {seeds: 2020-01-01}", "no date": "07: {seeds: 2020-13-45}",
    "sexagesimal": "07: {seeds: 1:30}", "octal": "07: {seeds: 010}",
    "digits": f"07: {{seeds: {'9' * 10_000}}}", "large": f"07: {{rate: 1{'0' * 400}}}",
    "hexadecimal": f"07: {{seeds: 0x{'f' * 10_000}}}", "infinity": "07: {rate: .inf}",
    "NaN": "07: {rate: .nan}", "yes": "07: {fast: yes}", "null": "07: {seeds: null}",
    "tab": "\t07: {seeds: 9}", "tab within": "07:\n\tseeds: 9", "tilde": "~",
    "BOM": "\ufeff07: {seeds: 9}", "UTF-16": "07: {seeds: 9}".encode("utf-16"),
    "UTF-32": "07: {seeds: 9}".encode("utf-32"),
    "Latin": "07: {kind: \xe9}".encode("latin-1"),
    "bytes": bytes(range(256)), "NUL": "07: {seeds: \0}", "zeros": bytes(10_000),
    "escape": f"07: {{kind: \"{ESCAPE}\"}}", "escaped": '07: {kind: "\\e]0;owned\\a"}',
    "escaped name": '07: {"\\e[31m": 1}',
    "escaped name twice": '07: {"\\e": 1, "\\e": 1}',
    "escaped chapter": '"\\e[31m": {seeds: 9}', "direction": "07: {kind: [\u202e}",
    "surrogate": '07: {kind: "\\ud800"}', "separator": "07: {kind: [a\u2028b}",
    "chapter twice": "07: {seeds: 9}\n7: {seeds: 9}",
    "name twice": "07: {seeds: 9, seeds: 9}",
    "numbers as names": "07: {1: 9}", "nothing as a name": "07: {~: 9}",
    "list as a name": "07: {[a, b]: 9}", "mapping as a name": "07: {{a: b}: 9}",
    "list": "[07, 08]", "text": "seeds", "number": "7",
    "nested": "07: {seeds: {a: {b: 1}}}",
    "two documents": "07: {seeds: 9}\n---\n07: {seeds: 9}",
    "end": "07: {seeds: 9}\n...\nx",
    "directive": "%YAML 9.9\n---\n07: {seeds: 9}",
    "directive unknown": "%X\n---\n07: {}",
    "open": "07: {seeds: 9", "quote": "07: {kind: 'a}", "dashes": "- - - - - -",
    "deep lists": "07: {names: " + "[" * 10_000 + "]" * 10_000 + "}",
    "deep mappings": "07: " + "{a: " * 10_000 + "}" * 10_000,
    "deep dashes": "07: " + "- " * 10_000, "deep keys": "? " * 10_000,
    "many names": "07: {" + ", ".join(f"x{i}: 1" for i in range(20_000)) + "}",
    "many chapters": "\n".join(f"x{i}: {{}}" for i in range(20_000)),
    "many items": "07: {names: [" + "1, " * 20_000 + "1.5]}",
    "long name": "07: {" + "x" * 900 + ": 1}",
    "long text": f"07: {{seeds: {'x' * 10**6}}}",
}


# ------------------------------------------------------------------ notebooks


def notebook(**changes):
    """Return an executed chapter as JSON, with a claim and a number."""
    claim = {"where": "3.1", "statement": "it is so", "found": "r 0.50 (0.40 to 0.60)",
             "verdict": "holds", **changes}
    show = {"output_type": "display_data", "data": {},
            "metadata": {"wcka": {"claims": [claim]}}}
    number = {"output_type": "display_data", "data": {diff._RECORD: "'0.000'"},
              "metadata": {"scrapbook": {"name": "plain"}}}
    cell = {"cell_type": "code", "source": "", "execution_count": 1, "metadata": {},
            "outputs": [show, number]}
    return {"nbformat": 4, "nbformat_minor": 4, "cells": [cell],
            "metadata": {"wcka": {"seeds": 5}}}


# Where something of another type may stand in a notebook
PLACES = [
    (), ("cells",), ("metadata",), ("metadata", "wcka"), ("nbformat",),
    ("nbformat_minor",), ("cells", 0), ("cells", 0, "cell_type"), ("cells", 0,
    "source"),
    ("cells", 0, "metadata"), ("cells", 0, "metadata", "tags"), ("cells", 0, "outputs"),
    ("cells", 0, "execution_count"), ("cells", 0, "outputs", 0),
    ("cells", 0, "outputs", 0, "output_type"), ("cells", 0, "outputs", 0, "data"),
    ("cells", 0, "outputs", 0, "metadata"),
    ("cells", 0, "outputs", 0, "metadata", "wcka"),
    ("cells", 0, "outputs", 0, "metadata", "wcka", "claims"),
    ("cells", 0, "outputs", 0, "metadata", "wcka", "claims", 0),
    ("cells", 0, "outputs", 0, "metadata", "wcka", "claims", 0, "where"),
    ("cells", 0, "outputs", 0, "metadata", "wcka", "claims", 0, "found"),
    ("cells", 0, "outputs", 0, "metadata", "wcka", "claims", 0, "verdict"),
    ("cells", 0, "outputs", 0, "metadata", "wcka", "claims", 0, "timed"),
    ("cells", 0, "outputs", 1, "data", diff._RECORD),
    ("cells", 0, "outputs", 1, "metadata", "scrapbook"),
    ("cells", 0, "outputs", 1, "metadata", "scrapbook", "name"),
]
OTHERS = {
    "nothing": None, "truth": True, "number": 10**400, "NaN": math.nan, "list": [],
    "lists": [[[]]], "texts": ["a", 1], "text": "x", "escape": ESCAPE, "lines": "a\nb",
    "surrogate": "\ud800", "mapping": {}, "mappings": {"a": {"b": []}},
    "long": "x" * 300_000, "missing": ...}


def changed_notebooks():
    """Yield notebooks with something of another type in each place, as text."""
    for place in PLACES:
        for words, value in OTHERS.items():
            content = {"": notebook()}
            *outer, last = ["", *place]
            holder = content
            for key in outer:
                holder = holder[key]
            if value is not ...:
                holder[last] = value
            elif isinstance(holder, list) or last in holder:
                del holder[last]
            name = "/".join(map(str, place))
            yield f"{words} at {name}", json.dumps(content.get("", {}))


LONG_TEXTS = [
    "1" * 20_000, "1" * 500_000, "1," * 200_000, "1." * 200_000, "1e" * 200_000,
    "-1" * 200_000, "1 (" * 100_000, "1 (1 to " * 50_000, "0.5 (" + "1" * 200_000,
    "0.5 (0.4 to " + "1" * 200_000, "0.5 (0.4 to 0.6) " * 20_000, "1e" + "9" * 200_000,
    "0 (0 to " + "1" * 5000 + ")", "1e400 (1e400 to 1e400)", "x" * 5_000_000]


def odd_notebooks():
    """Yield notebooks that are wrong in another way, as text."""
    for text in LONG_TEXTS:
        yield f"finding {text[:20]}, {len(text)}", json.dumps(notebook(found=text))
    for field in ("where", "statement", "found", "verdict"):
        for value in (ESCAPE, "a\nb\rc", "\u202eabc", "\0", "\x9b31m", "\udc80"):
            hostile_text = json.dumps(notebook(**{field: value}))
            yield f"{field} {value!r}", hostile_text
    deep = '{"cells": ' + "[" * 100_000 + "]" * 100_000 + "}"
    texts = {
        "empty": "", "space": " ", "null": "null", "list": "[]", "mapping": "{}",
        "number": "9" * 10_000, "NaN": "NaN", "text": '"x"', "deep": deep,
        "open": '{"cells": [', "deep open": "[" * 100_000, "zeros": "\0" * 1000,
        "BOM": "\ufeff" + json.dumps(notebook()),
        "behind": json.dumps(notebook()) + "x",
        "twice": '{"cells": [], ' + json.dumps(notebook())[1:]}
    for version in (0, 1, 2, 3, 5, 99, -4, 4.5, 1e400):
        texts[f"nbformat {version}"] = json.dumps({**notebook(), "nbformat": version})
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {"wcka": {}},
           "worksheets": [{"cells": notebook()["cells"]}]}
    for name, value in (("3", old), ("3 bare", {**old, "worksheets": 5}),
                        ("2", {**old, "nbformat": 2}), ("1", {**old, "nbformat": 1})):
        texts[f"format {name}"] = json.dumps(value)
    yield from texts.items()
