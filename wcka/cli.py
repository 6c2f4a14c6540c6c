"""``python -m wcka``: compare checkpoints; run chapters and build the book from them.

Nothing but the standard library is imported here: each command imports what it needs when it runs,
so that help and refusals come at once.
"""

import argparse
import sys
from pathlib import Path

from .book.checkout import UsageError


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        The exit status: 0; 1 for a failed run, or for runs that differ; 2 for a wrong call; 130
        for Ctrl-C.

    Examples
    --------
    >>> main(["params", "2", "--profile"])
    Traceback (most recent call last):
    SystemExit: 2
    """
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments) or 0
    except (UsageError, ValueError) as error:
        print(f"wcka: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"wcka: this needs the package {error.name!r}: "
              f"pip install 'wcka[{arguments.extra}]'", file=sys.stderr)
        return 2
    except (RuntimeError, OSError) as error:
        print(f"wcka: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("wcka: interrupted; what was computed is kept: the same call goes on from there",
              file=sys.stderr)
        return 130


# ------------------------------------------------------------------------------- arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wcka",
        description="Compare checkpoints; run chapters and build the book from them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_compare(commands)
    _add_run(commands)
    book = commands.add_parser("book", help="run the chapters that changed and build the html")
    book.add_argument("--profile", default="quick", help="a file of notebooks/profiles")
    book.add_argument("--pdf", action="store_true", help="and a PDF of it, by a browser")
    book.set_defaults(command=_book_command, extra="book")
    diff = commands.add_parser("diff", help="claims and numbers in which two runs differ")
    diff.add_argument("runs", nargs=2, type=Path, metavar="RUN",
                      help="an executed chapter, or a folder of them")
    diff.set_defaults(command=_diff_command, extra="book")
    params = commands.add_parser("params", help="list a chapter's parameters")
    params.add_argument("chapter", metavar="CHAPTER")
    params.set_defaults(command=_params_command, extra="book")
    pair = commands.add_parser("pair", help="write each chapter's .ipynb from its .py")
    pair.set_defaults(command=_pair_command, extra="book")
    fetch = commands.add_parser("data", help="fetch and verify a data set")
    fetch.add_argument("dataset", nargs="?", default="mnist")
    fetch.set_defaults(command=_data_command, extra="experiments")
    return parser


def _add_compare(commands) -> None:
    compare = commands.add_parser("compare", help="how similar networks in files are, by wCKA")
    compare.add_argument("files", nargs="+", metavar="FILE",
                         help="state dicts: .safetensors or .pt")
    compare.add_argument("--arch", metavar="NAME",
                         help="torchvision:resnet18, or module:function of yours that builds the "
                         "network (default: fully connected)")
    compare.add_argument("--input-shape", nargs="+", type=int, metavar="N",
                         help="shape of one input, as 3 224 224")
    compare.add_argument("--freeze", nargs="+", default=[], metavar="KIND",
                         help="of gate, norm, attention: see wcka.chain")
    compare.add_argument("--layers", action="store_true",
                         help="all layers, even if it takes long")
    compare.add_argument("--matrix", type=Path, metavar="OUT.png", help="draw all pairs")
    compare.add_argument("--json", action="store_true", help="print JSON")
    compare.set_defaults(command=_compare_command, extra="book")


def _add_run(commands) -> None:
    run = commands.add_parser("run", help="run one chapter")
    run.add_argument("chapter", metavar="CHAPTER", help="its number or name: 02, 02-calibration")
    run.add_argument("--profile", default="quick", help="a file of notebooks/profiles")
    run.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                     dest="parameters", help="set a parameter; may be repeated")
    run.add_argument("-o", type=Path, metavar="OUT.ipynb", dest="output",
                     help="where to put the executed notebook (default: below _build)")
    run.set_defaults(command=_run_command, extra="book")


# ------------------------------------------------------------------------------- the library


def _compare_command(arguments) -> None:
    if len(arguments.files) < 2:
        raise UsageError("wanted at least two files")
    for file in arguments.files:
        if not Path(file).is_file():
            reason = "a folder" if Path(file).is_dir() else "no such file"
            raise UsageError(f"{file}: {reason}")
    from .weights import comparison

    if arguments.matrix:
        from .book import figures

        figures.check_image(arguments.matrix)
    try:
        result = comparison.compare_files(
            arguments.files, arguments.arch, arguments.input_shape, arguments.freeze,
            arguments.layers)
    except Exception as error:  # a network of the user's may raise anything when it runs
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(lines[0]) from None
    print(comparison.as_json(result) if arguments.json else comparison.described(result))
    if arguments.matrix:
        figures.draw_similarities(
            result["all"]["wcka"], comparison.short_names(result["files"]), arguments.matrix)


def _data_command(arguments) -> None:
    from .networks import sources

    print(sources.fetch(arguments.dataset))


# ------------------------------------------------------------------------------- the book


def _params_command(arguments) -> None:
    from .book import checkout
    from .book.parameters import parameters

    checkout.require()
    for parameter in parameters(checkout.find_chapter(arguments.chapter)).values():
        print(f"{parameter.name}: {parameter.kind} = {parameter.default!r}\n"
              f"    {parameter.comment}")


def _pair_command(arguments) -> None:
    from .book import checkout

    checkout.require()
    from .book import execution

    for path in checkout.chapters():
        if execution.cells_of_pair_alone(path):
            raise UsageError(execution.refusal_of_pair(path))
    for path in checkout.chapters():
        execution.write_pair(path)


def _diff_command(arguments) -> int:
    for path in arguments.runs:
        if not path.exists():
            raise UsageError(f"{path}: no notebook (no such file)")
    from .book import diff

    lines = diff.differences(*arguments.runs)
    print("\n".join(lines) or "no verdict changed, and no number moved beyond its interval "
          "(numbers without an interval are not compared)")
    return int(bool(lines))


def _run_command(arguments) -> None:
    from .book import checkout, parameters

    checkout.require()
    path = checkout.find_chapter(arguments.chapter)
    values = parameters.choose(path, arguments.profile, arguments.parameters)
    output = arguments.output or checkout.BUILD / "runs" / f"{path.stem}.ipynb"
    from .book import execution

    execution.check_output(output)
    parameters.vet(path, values)
    from .networks import sources

    for name in parameters.datasets(path, values):
        sources.fetch(name)
    print(execution.run_chapter(path, values, arguments.profile, output.absolute()))


def _book_command(arguments) -> None:
    from .book import checkout, parameters

    checkout.require()
    parameters.read_profile(arguments.profile)  # refused before anything heavy is imported
    from .book import builder

    print(builder.build(arguments.profile, arguments.pdf))
