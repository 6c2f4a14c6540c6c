"""``python -m wcka``: compare checkpoints; run chapters and build the book from them.

This module imports nothing but the standard library: each command imports what it needs
when it runs, so that help and refusals come at once.
"""

import argparse
import io
import os
import sys
from functools import partial
from pathlib import Path

from .book.checkout import UsageError

_CHAPTER = "its number or name: 02, 02-calibration"


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        The exit status: 0 for success; 1 for a failed run, or for two runs that differ;
        2 for a wrong call; 130 for Ctrl-C; 141 if nobody reads the output to its end.

    Examples
    --------
    >>> main(["diff", "_build/no-such-run.ipynb", "_build/no-such-run.ipynb"])
    2
    >>> main(["params", "2", "--profile"])
    Traceback (most recent call last):
    SystemExit: 2
    """
    # A terminal that cannot show a character shows its number.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    try:
        status = arguments.command(arguments) or 0
        if sys.stdout:  # which is None where standard output is closed
            sys.stdout.flush()  # on a full disk this raises the error that is said
        return status
    except (UsageError, ValueError) as error:
        _complain(str(error))
        return 2
    except ModuleNotFoundError as error:
        _complain(
            f"this needs the package {error.name!r}: "
            f"pip install 'wcka[{arguments.extra}]'")
        return 2
    except BrokenPipeError:  # whoever read the output has seen enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (RuntimeError, OSError) as error:
        _complain(str(error))
        return 1
    except KeyboardInterrupt:
        _complain(
            "interrupted; what was computed is kept: "
            "the same call goes on from there")
        return 130


def _complain(reason: str) -> None:
    """Print on standard error why the command did not succeed."""
    from .measures.spelling import printable

    # Reasons may have several lines, each of them fit for a terminal.
    lines = [printable(line) for line in reason.split("\n")]
    print("wcka:", "\n".join(lines), file=sys.stderr)


# ---------------------------------------------------------------------------- arguments


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all commands.

    It sets ``command``, the function to call, and ``extra``, the one to install for it.
    """
    parser = argparse.ArgumentParser(
        prog="python -m wcka",
        description="Compare checkpoints; run chapters and build the book from them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_compare(commands)
    _add_family(commands)
    _add_run(commands)
    book = commands.add_parser(
        "book", help="run the chapters that changed and build the html")
    book.add_argument(
        "--profile", default="quick",
        help="quick (the default), smoke, large, or another file of notebooks/profiles")
    book.add_argument(
        "--pdf", action="store_true", help="and a PDF of it, by a browser")
    book.set_defaults(command=_book_command, extra="book")
    diff = commands.add_parser(
        "diff", help="claims and numbers in which two runs differ")
    diff.add_argument(
        "runs", nargs=2, type=Path, metavar="RUN",
        help="an executed chapter, or a folder of them")
    diff.set_defaults(command=_diff_command, extra="book")
    record = commands.add_parser(
        "record", help="run a chapter at the profile large and keep what it found")
    record.add_argument("chapter", metavar="CHAPTER", help=_CHAPTER)
    record.set_defaults(command=_record_command, extra="book")
    params = commands.add_parser("params", help="list a chapter's parameters")
    params.add_argument("chapter", metavar="CHAPTER", help=_CHAPTER)
    params.set_defaults(command=_params_command, extra="book")
    pair = commands.add_parser("pair", help="write each chapter's .ipynb from its .py")
    pair.set_defaults(command=_pair_command, extra="book")
    fetch = commands.add_parser("data", help="fetch and verify a data set")
    fetch.add_argument(
        "dataset", nargs="?", default="mnist", help="mnist (the default) or fashion")
    fetch.set_defaults(command=_data_command, extra="experiments")
    return parser


def _add_compare(commands) -> None:
    """Add the command ``compare`` and its arguments."""
    compare = commands.add_parser(
        "compare", help="how similar networks in files are, by wCKA")
    compare.add_argument(
        "files", nargs="+", metavar="FILE",
        help="weights of safetensors, torch or NumPy; folders of networks")
    compare.add_argument(
        "--arch", metavar="NAME", action="append",
        help="torchvision:resnet18, or module:function of yours that builds the "
             "network (default: fully connected); once for all files, or for each")
    compare.add_argument(
        "--input-shape", nargs="+", type=int, metavar="N",
        help="shape of one input, as 3 224 224")
    compare.add_argument(
        "--freeze", nargs="+", default=[], metavar="KIND",
        help="gate, norm or attention: hold what multiplies by the input fixed at its "
             "value for one input, so that there is a chain")
    compare.add_argument(
        "--key", metavar="KEY",
        help="which of several networks in each file, as generator")
    compare.add_argument(
        "--order", nargs="+", default=[], metavar="LAYER",
        help="the layers of the chain, where files do not tell their order; what "
             "stands between them, as the gains of norms, is left out")
    compare.add_argument(
        "--stored", metavar="LAYOUT",
        help="out-in or in-out: how matrices are stored, where files do not tell")
    compare.add_argument(
        "--layers", action="store_true", help="all layers, even if it takes long")
    compare.add_argument(
        "--matrix", type=Path, metavar="OUT.png", help="draw all pairs")
    compare.add_argument(
        "--json", action="store_true",
        help="print JSON, with the keys on the page On your own networks")
    compare.set_defaults(command=_compare_command, extra="book")


def _add_family(commands) -> None:
    """Add the command ``family`` and its arguments."""
    family = commands.add_parser(
        "family", help="which networks in a folder descend from one another")
    family.add_argument(
        "folder", type=Path, metavar="DIR", help="a folder of checkpoints")
    family.add_argument(
        "--key", metavar="KEY",
        help="which of several networks in each file, as generator")
    family.add_argument(
        "--order", nargs="+", default=[], metavar="LAYER",
        help="the layers of the chain, where files do not tell their order")
    family.add_argument(
        "--stored", metavar="LAYOUT",
        help="out-in or in-out: how matrices are stored, where files do not tell")
    family.add_argument(
        "--matrix", type=Path, metavar="OUT.png", help="draw all pairs")
    family.add_argument(
        "--json", action="store_true",
        help="print JSON, with the keys on the page On your own networks")
    family.set_defaults(command=_family_command, extra="book")


def _add_run(commands) -> None:
    """Add the command ``run`` and its arguments."""
    run = commands.add_parser("run", help="run one chapter")
    run.add_argument(
        "chapter", metavar="CHAPTER", help=_CHAPTER)
    run.add_argument(
        "--profile", default="quick",
        help="quick (the default), smoke, large, or another file of notebooks/profiles")
    run.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        dest="parameters", help="set a parameter; may be repeated")
    run.add_argument(
        "-o", type=Path, metavar="OUT.ipynb", dest="output",
        help="where to put the executed notebook (default: below _build)")
    run.set_defaults(command=_run_command, extra="book")


# -------------------------------------------------------------------------- the library


def _sleep_while_waiting() -> None:
    """Have threads sleep that wait for others, before PyTorch starts them.

    By default they keep their cores busy, which on a busy machine are those of the
    threads that they wait for: the skeleton of a ConvNeXt took eleven times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _compare_command(arguments) -> None:
    """Print how similar the networks in files are, and draw it if asked to."""
    _sleep_while_waiting()
    for file in arguments.files:
        _check_there(file, "no such file")
    if len(arguments.files) < 2 and not os.path.isdir(arguments.files[0]):
        raise UsageError("wanted at least two files, or a folder of them")
    from .weights import comparison, report

    # The user's network may raise anything when it runs.
    result = _computed(Exception, arguments, partial(
        comparison.compare_files, arguments.files, arguments.arch,
        arguments.input_shape, arguments.freeze, arguments.layers))
    if result["undecided"]:
        raise UsageError(result["undecided"])
    print(report.as_json(result) if arguments.json else report.described(result))
    _draw(arguments, result, result["all"]["wcka"], "wCKA")


def _check_there(path, reason: str) -> None:
    """Refuse a path that is not there, or behind a folder that cannot be read."""
    from .measures.spelling import printable

    try:
        os.stat(path)
    except PermissionError:
        raise UsageError(f"{printable(str(path))}: no permission to read it") from None
    except (OSError, ValueError):
        raise UsageError(f"{printable(str(path))}: {reason}") from None


def _family_command(arguments) -> None:
    """Print the families of the networks in a folder, and draw all pairs if asked."""
    from .measures.spelling import printable

    _sleep_while_waiting()
    folder = arguments.folder
    _check_there(folder, "no such folder")
    if not os.path.isdir(folder):
        raise UsageError(f"{printable(str(folder))}: not a folder")
    from .weights import kinship, report

    result = _computed(
        ValueError, arguments, partial(kinship.find_families, [str(folder)]))
    if arguments.json:
        print(report.as_json(result))
    else:
        print(kinship.described_families(result))
    _draw(arguments, result, result["scores"], result["score"])


def _computed(refusals: type[Exception], arguments, compare) -> dict:
    """Return what a comparison of files finds; refusals are said in one line.

    `compare` takes key, order and stored, which both commands have.
    """
    import warnings

    from .weights import streams
    from .weights.messages import LONGEST, one_line

    if arguments.matrix:
        from .book import figures

        figures.check_image(arguments.matrix)  # a bad name is refused first
    try:
        with warnings.catch_warnings(), streams.printed_on_stderr():
            warnings.simplefilter("ignore", UserWarning)  # the text says the same
            return compare(
                key=arguments.key, order=arguments.order, stored=arguments.stored)
    except ModuleNotFoundError:
        raise
    except refusals as error:
        raise UsageError(one_line(error, LONGEST)) from None


def _draw(arguments, result: dict, values, title: str) -> None:
    """Draw the values of all pairs, if asked to."""
    if arguments.matrix:
        from .book import figures
        from .weights import report

        names = report.short_names(result["files"])
        figures.draw_similarities(values, names, arguments.matrix, title)


def _data_command(arguments) -> None:
    """Fetch a data set and print where it is."""
    from .networks import sources

    print(sources.fetch(arguments.dataset))


# ----------------------------------------------------------------------------- the book


def _params_command(arguments) -> None:
    """Print the parameters of a chapter, each with its type, default and meaning."""
    from .book import checkout
    from .book.parameters import read_parameters
    from .measures.spelling import printable

    checkout.require()
    path = checkout.find_chapter(arguments.chapter)
    for parameter in read_parameters(path).values():
        print(f"{parameter.name}: {parameter.kind} = {parameter.default!r}")
        print(f"    {printable(parameter.comment)}")


def _pair_command(arguments) -> None:
    """Write the .ipynb of every chapter, or none if one holds cells of its own."""
    from .book import checkout

    checkout.require()
    from .book import execution

    for path in checkout.chapters():
        if execution.cells_of_pair_alone(path):
            raise UsageError(execution.refusal_of_pair(path))
    for path in checkout.chapters():
        execution.write_pair(path)


def _diff_command(arguments) -> int:
    """Print in what two runs differ; the exit status says whether they do."""
    from .measures.spelling import printable

    for path in arguments.runs:
        if not os.path.exists(path):  # unlike Path.exists(), also for too long a name
            name = printable(str(path))
            raise UsageError(f"{name}: no notebook (no such file)")
    from .book import diff

    lines = diff.differences(*arguments.runs)
    if lines:
        print("\n".join(lines))
        return 1
    print("no verdict changed, and no number moved beyond its interval "
          "(numbers without an interval are not compared)")
    return 0


def _run_command(arguments) -> None:
    """Run one chapter, after all that can be refused without running it."""
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


def _record_command(arguments) -> None:
    """Make the record of one chapter anew."""
    from .book import checkout, records

    checkout.require()
    print(records.run(arguments.chapter))


def _book_command(arguments) -> None:
    """Build the book and print where it is."""
    from .book import checkout, parameters

    checkout.require()
    # An unknown profile is refused before anything heavy is imported.
    parameters.read_profile(arguments.profile)
    from .book import builder

    print(builder.build(arguments.profile, arguments.pdf))
