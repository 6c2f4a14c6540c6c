"""``python -m wcka``: compare checkpoints; run chapters and build the book from them."""

import argparse
import sys
from pathlib import Path

from . import book, chapters, data, runs
from .chapters import UsageError


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status.

    0; 1 for a failed run, or for runs that differ; 2 for a wrong call; 130 for Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments) or 0
    except (UsageError, ValueError) as error:
        print(f"wcka: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, OSError) as error:
        print(f"wcka: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("wcka: interrupted; what was computed is kept: the same call goes on from there",
              file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m wcka", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pairs = commands.add_parser("compare", help="how alike networks in files are, by wCKA")
    pairs.add_argument("files", nargs="+", metavar="FILE", help="state dicts: .safetensors or .pt")
    pairs.add_argument("--arch", metavar="NAME", help="torchvision:resnet18, or module:function of "
                       "yours that builds the network (default: fully connected)")
    pairs.add_argument("--input-shape", nargs="+", type=int, metavar="N",
                       help="shape of one input, as 3 224 224")
    pairs.add_argument("--freeze", nargs="+", default=[], metavar="KIND",
                       help="of gate, norm, attention: see wcka.chain")
    pairs.add_argument("--layers", action="store_true", help="all layers, even if it takes long")
    pairs.add_argument("--matrix", type=Path, metavar="OUT.png", help="draw all pairs")
    pairs.add_argument("--json", action="store_true", help="print JSON")
    pairs.set_defaults(command=_compare_command)
    run = commands.add_parser("run", help="run one chapter")
    run.add_argument("chapter", metavar="CHAPTER", help="its number or name: 02, 02-calibration")
    run.add_argument("--profile", default="quick", help="a file of notebooks/profiles")
    run.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                     dest="parameters", help="set a parameter; may be repeated")
    run.add_argument("-o", type=Path, metavar="OUT.ipynb", dest="output",
                     help="where to put the executed notebook (default: below _build)")
    run.set_defaults(command=_run_command)
    whole = commands.add_parser("book", help="run the chapters that changed and build the html")
    whole.add_argument("--profile", default="quick")
    whole.add_argument("--pdf", action="store_true", help="and a PDF of it, by a browser")
    whole.set_defaults(command=lambda arguments: print(book.build(arguments.profile,
                                                                  arguments.pdf)))
    diff = commands.add_parser("diff", help="claims and numbers that two runs do not agree in")
    diff.add_argument("runs", nargs=2, type=Path, metavar="RUN",
                      help="an executed chapter, or a folder of them")
    diff.set_defaults(command=_diff_command)
    params = commands.add_parser("params", help="list a chapter's parameters")
    params.add_argument("chapter", metavar="CHAPTER")
    params.set_defaults(command=_params_command)
    pair = commands.add_parser("pair", help="write each chapter's .ipynb from its .py")
    pair.set_defaults(command=_pair_command)
    fetch = commands.add_parser("data", help="fetch and verify a data set")
    fetch.add_argument("dataset", nargs="?", default="mnist")
    fetch.set_defaults(command=lambda arguments: print(data.fetch(arguments.dataset)))
    return parser


def _compare_command(arguments) -> None:
    from . import comparison  # torch takes seconds to load, and the other commands do without

    if arguments.matrix:
        comparison.check_image(arguments.matrix)
    try:
        result = comparison.compared(arguments.files, arguments.arch, arguments.input_shape,
                                     arguments.freeze, arguments.layers)
    except Exception as error:  # a network of the user's may raise anything when it runs
        raise UsageError(str(error).strip().splitlines()[0] if str(error).strip()
                         else type(error).__name__) from None
    print(comparison.as_json(result) if arguments.json else comparison.described(result))
    if arguments.matrix:
        comparison.draw(result, arguments.matrix)


def _params_command(arguments) -> None:
    for p in chapters.parameters(chapters.find(arguments.chapter)).values():
        print(f"{p.name}: {p.kind} = {p.default!r}\n    {p.comment}")


def _pair_command(arguments) -> None:
    for path in chapters.every():
        chapters.write_pair(path)


def _diff_command(arguments) -> int:
    lines = runs.differences(*arguments.runs)
    print("\n".join(lines) or "no verdict changed, and no number moved beyond its interval "
          "(numbers without an interval are not compared)")
    return int(bool(lines))


def _run_command(arguments) -> None:
    path = chapters.find(arguments.chapter)
    values = chapters.choose(path, arguments.profile, arguments.parameters)
    chapters.vet(path, values)
    for name in chapters.datasets(path, values):
        data.fetch(name)
    output = arguments.output or chapters.BUILD / "runs" / f"{path.stem}.ipynb"
    print(chapters.run(path, values, arguments.profile, output.absolute()))
