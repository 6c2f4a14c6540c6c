"""Input from strangers: files, values and names that are wrong on purpose.

Each is answered by the right result, or by the promised error on one line that a
terminal can print. Nothing in it runs, and nothing is waited for without end.
"""

import contextlib
import io
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import hostile_checkpoints as hostile
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from hostile_texts import (
    CODE,
    ESCAPE,
    FORGED,
    NAMES,
    PROFILES,
    VALUES,
    changed_notebooks,
    notebook,
    odd_notebooks,
)
from torch import nn

import wcka
from wcka import cli
from wcka.book import checkout, diff, parameters
from wcka.experiments import cache
from wcka.measures.spelling import printable
from wcka.networks.populations import Population, initialise
from wcka.weights import checkpoints, comparison

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of Unix"),
]
# Seconds within which everything here is answered, with a wide margin
LIMIT = 15


class TooLong(BaseException):
    """It is no Exception, which code that reads damaged files would catch."""


@contextlib.contextmanager
def limited(seconds=LIMIT):
    """Interrupt what takes too long, and call it an error."""
    def interrupt(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except TooLong:
        raise AssertionError(f"took more than {seconds} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_line(text):
    """Check that a text is one line that a terminal prints as it is."""
    assert str(text).strip() and str(text).isprintable(), repr(str(text)[:200])


def refusal(function, *arguments, errors=(ValueError, checkout.UsageError)):
    """Return the error by which a function refuses its arguments on one line."""
    try:
        with limited():
            function(*arguments)
    except errors as error:
        check_line(error)
        return error
    raise AssertionError("not refused")


def run_wcka(*arguments, seconds=120, **options):
    """Run ``python -m wcka`` in a process of its own."""
    command = [sys.executable, "-m", "wcka", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, timeout=seconds, cwd=checkout.ROOT, **options)


def check_refused(process, status):
    """Check that a process ended with a status, and said why on one line."""
    assert process.returncode == status, process.stderr[-300:]
    text = process.stderr.decode("utf-8", "surrogateescape")
    assert text.startswith("wcka: ") and text.endswith("\n")
    check_line(text[:-1])


# ------------------------------------------------------------------------- checkpoints


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def saved_npz(state):
    file = io.BytesIO()
    np.savez(file, **{name: values.numpy() for name, values in state.items()})
    return file.getvalue()


class Comparison:
    """A sound file, and the right similarities of others with it."""

    def __init__(self, folder):
        self.folder = folder
        self.reference = folder / "good.pt"
        self.marker = folder / "executed"
        self.script = folder / "script.py"
        self.script.write_text(f"open({str(self.marker)!r}, 'w')")
        self.reference.write_bytes(saved(network(0).state_dict()))
        self.state = network(1).state_dict()
        self.whole = wcka.wcka(network(0), network(1))
        first = self.state["0.weight"].T
        self.first_layer = wcka.wcka(network(0), first)

    def of(self, path):
        """Return the similarity of a file and the sound one, or the refusal's text."""
        try:
            with limited():
                result = comparison.compare_files(
                    [str(self.reference), str(path)], networks=3)
        except ValueError as error:
            check_line(error)
            return str(error)
        return result["all"]["wcka"][0][1]

    def check(self, name, content, right=None):
        """Check that a file is refused, or has the right similarity if there is one."""
        path = self.folder / name
        path.write_bytes(content)
        try:
            with limited():
                checkpoints.read(path)
        except ValueError as error:
            check_line(error)
        answer = self.of(path)
        path.unlink()
        if right is None:
            assert isinstance(answer, str), f"has a similarity of {answer}"
        elif not isinstance(answer, str):
            assert answer == pytest.approx(right, abs=1e-4)
        assert not os.path.lexists(self.marker), "ran code"
        return answer


@pytest.fixture
def compared(tmp_path):
    return Comparison(tmp_path)


def check_all(tally, compared, files, right=None):
    """Check each file of pairs of a name and bytes."""
    for name, content in files:
        with tally.attempt(name):
            compared.check(name, content, right)


def test_pickles_that_would_run_code(tally, compared):
    """Checkpoints that would run code"""
    marker = str(compared.marker)
    script = str(compared.script)
    check_all(tally, compared, hostile.pickles_with_calls(marker, script))
    arrays = hostile.saved_array(np.array([hostile.Recipe(os.mkdir, marker)]),
                                 allow_pickle=True)
    check_all(tally, compared, [
        ("array.npz", hostile.zipped([("a.weight.npy", arrays)])),
        ("array.npy", arrays), ("array.pt", arrays)])


def test_pickles_that_lie(tally, compared):
    """Checkpoints whose pickles lie"""
    files = hostile.pickles_that_lie(compared.state)
    check_all(tally, compared, files, compared.first_layer)


def test_small_files_of_billions_of_values(tally, compared):
    """Small checkpoints that stand for billions of values"""
    with tally.attempt("dicts"):
        compared.check("dicts.pt", saved(hostile.shared_dicts()))
    with tally.attempt("lists"):
        compared.check("lists.pt", saved(hostile.shared_lists()))
    with tally.attempt("beside weights"):
        content = {"model": compared.state, "more": hostile.shared_lists()}
        answer = compared.check("beside.pt", saved(content), compared.whole)
        assert not isinstance(answer, str)
    with tally.attempt("a million keys that are no weights"):
        counts = {f"count {i}": i for i in range(1_000_000)}
        content = {**compared.state, "counts": counts}
        answer = compared.check("keys.pt", saved(content), compared.whole)
        assert not isinstance(answer, str)


def test_archives_that_lie(tally, compared):
    """Zip archives of torch that lie"""
    evil = hostile.PLACES["alone"](
        hostile.call_of("os mkdir", (str(compared.marker),)))
    files = hostile.archives_that_lie(saved(compared.state), evil)
    check_all(tally, compared, files, compared.whole)
    outside = [Path(hostile.ABSOLUTE), compared.folder / "above",
               compared.folder.parent / "above"]
    assert not any(map(os.path.lexists, outside))


def test_safetensors_that_lie(tally, compared):
    """Headers of safetensors that lie"""
    files = hostile.headers_that_lie(compared.state)
    check_all(tally, compared, files, compared.first_layer)


def test_arrays_that_lie(tally, compared):
    """Archives of NumPy that lie"""
    files = hostile.arrays_that_lie(compared.state, str(compared.marker))
    check_all(tally, compared, files, compared.first_layer)
    check_all(
        tally, compared, hostile.archives_of_arrays(compared.state), compared.whole)


def test_rezipped_checkpoints(tally, compared):
    """Checkpoints that another tool has zipped"""
    for name, content, readable in hostile.rezipped(saved(compared.state)):
        with tally.attempt(name):
            answer = compared.check(name, content, compared.whole)
            if readable:
                assert not isinstance(answer, str), answer
            elif isinstance(answer, str):  # torch itself cannot read it
                assert re.search(r"unsupported|compress|subdirectory|__MACOSX", answer)


def odd_places(folder):
    """Make paths that are no files, by the words for them."""
    paths = {"nothing": folder / "nothing.pt", "empty": folder / "empty.pt",
             "folder": folder / "folder.pt", "dangling": folder / "dangling.pt",
             "itself": folder / "itself.pt", "loop": folder / "loop.pt",
             "pipe": folder / "pipe.pt", "socket": folder / "socket.pt"}
    paths["empty"].touch()
    paths["folder"].mkdir()
    paths["dangling"].symlink_to("nowhere.pt")
    paths["itself"].symlink_to("itself.pt")
    paths["loop"].symlink_to("back.pt")
    (folder / "back.pt").symlink_to("loop.pt")
    os.mkfifo(paths["pipe"])
    for number, device in enumerate(("null", "zero", "random", "full", "stdin", "tty")):
        paths[f"device {device}"] = Path("/dev", device)
        link = folder / f"link{number}.pt"
        link.symlink_to(f"/dev/{device}")
        paths[f"link to {device}"] = link
    below = paths["empty"] / "below.pt"
    return {**paths, "below a file": below, "memory": Path("/proc/self/mem"),
            "long name": folder / ("x" * 300 + ".pt"),
            "long path": folder / ("x/" * 2100), "no name": Path(""),
            "NUL": Path(f"{folder}/a\0b.pt"), "surrogate": folder / "a\udc80.pt",
            "escape": folder / f"{ESCAPE}.pt", "lines": folder / "a\nb\r.pt"}


def test_places_that_are_no_files(tally, compared):
    """Paths of a checkpoint that are no file"""
    server = socket.socket(socket.AF_UNIX)
    for words, path in odd_places(compared.folder).items():
        if words == "socket":
            with contextlib.chdir(compared.folder):  # names of sockets are short
                server.bind(path.name)
        with tally.attempt(words):
            assert isinstance(compared.of(path), str)
        with tally.attempt(f"read {words}"):
            refusal(checkpoints.read, path)
    server.close()


def test_folders_and_indices_that_lie(tally, compared):
    """Folders and indices of checkpoints that lie"""
    outside = compared.folder / "outside.safetensors"
    outside.write_bytes(safetensors.torch.save(compared.state))
    maps = {
        "above": {"0.weight": "../outside.safetensors"},
        "absolute": {"0.weight": str(outside)}, "itself": {"a": "model.index.json"},
        "folder": {"a": "."}, "nothing": {"a": ""}, "number": {"a": 5},
        "none": {"a": None}, "list": ["a"], "text": "a", "empty": {},
        "NUL": {"a": "\0"},
        "escape": {f"{ESCAPE}": f"{ESCAPE}"}, "surrogate": {"\udc80": "\udc80"},
        "long": {"a": "x" * 5000}, "many": {f"{i}": f"{i}.pt" for i in range(10_000)},
        "nested": {"a": {"b": "c"}}}
    texts = {words: json.dumps({"weight_map": value}) for words, value in maps.items()}
    texts |= {"no JSON": "{", "deep": "[" * 100_000, "no map": "{}", "list only": "[]",
              "digits": '{"weight_map": ' + "9" * 10_000 + "}"}
    for words, text in texts.items():
        folder = compared.folder / f"network {words}"
        folder.mkdir()
        (folder / "model.index.json").write_text(text)
        with tally.attempt(words):
            assert isinstance(compared.of(folder), str)
        shutil.rmtree(folder)


# --------------------------------------------------------------------------- damage


def weights_in_archive(content):
    """Return the positions of all bytes of a .pt file that are weights."""
    positions = set()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for item in archive.infolist():
            if "/data/" in item.filename:
                lengths = struct.unpack_from("<HH", content, item.header_offset + 26)
                start = item.header_offset + 30 + sum(lengths)
                positions |= set(range(start, start + item.file_size))
    return positions


def weights_in_safetensors(content):
    (length,) = struct.unpack_from("<Q", content)
    return set(range(8 + length, len(content)))


def sound_files(state):
    """Return files of three kinds with the positions of weights without a checksum."""
    archive = saved(state)
    flat = safetensors.torch.save(state)
    return {".pt": (archive, weights_in_archive(archive)),
            ".safetensors": (flat, weights_in_safetensors(flat)),
            ".npz": (saved_npz(state), set())}


def changed_bytes(content, positions, generator):
    """Return a content with one to four other bytes, at some of these positions."""
    damaged = bytearray(content)
    for position in generator.sample(positions, generator.randint(1, 4)):
        damaged[position] ^= generator.randrange(1, 256)
    return bytes(damaged)


def test_changed_bytes(tally, compared):
    """Checkpoints with random bytes changed beside the weights"""
    generator = random.Random(0)
    for ending, (content, weights) in sound_files(compared.state).items():
        positions = sorted(set(range(len(content))) - weights)
        for number in range(200):
            damaged = changed_bytes(content, positions, generator)
            with tally.attempt(f"{ending} {number}"):
                compared.check(f"{number}{ending}", damaged, compared.whole)


def test_changed_weights(tally, compared):
    """Checkpoints with random bytes changed within the weights"""
    generator = random.Random(1)
    for ending, (content, weights) in sound_files(compared.state).items():
        for number in range(100 if weights else 0):
            damaged = changed_bytes(content, sorted(weights), generator)
            path = compared.folder / f"{number}{ending}"
            path.write_bytes(damaged)
            with tally.attempt(f"{ending} {number}"):
                # These formats have no checksum of weights: they are others now.
                checkpoints.read(path).tensors()
                answer = compared.of(path)
                if not isinstance(answer, str):
                    assert -1e-9 <= answer <= 1 + 1e-9
                else:
                    assert "holds NaN or infinity" in answer or "numbers" in answer


def test_truncated_files(tally, compared):
    """Checkpoints truncated at random places"""
    generator = random.Random(2)
    for ending, (content, _) in sound_files(compared.state).items():
        for length in generator.sample(range(len(content)), 100):
            with tally.attempt(f"{ending} of {length} bytes"):
                compared.check(f"cut{ending}", content[:length], compared.whole)


# ----------------------------------------------------------------- values of parameters


def parameters_of_each_kind():
    """Return the chapter and the name of one parameter per chapter and type."""
    pairs = []
    for path in checkout.chapters():
        name_of_kind = {}
        for parameter in parameters.read_parameters(path).values():
            name_of_kind[parameter.kind] = parameter.name
        pairs += [(path, name) for name in name_of_kind.values()]
    return pairs


def check_value(path, name, value):
    """Check that a value is refused on one line, or has the type of its parameter."""
    kind = parameters.read_parameters(path)[name].type
    try:
        with limited():
            chosen = parameters.choose(path, "quick", [(name, value)])
            assert all(parameters.is_a(value, kind) for value in chosen.values())
            parameters.vet(path, chosen)
    except checkout.UsageError as error:
        check_line(error)


def test_values_of_parameters(tally, tmp_path, monkeypatch):
    """Values of parameters on the command line"""
    monkeypatch.chdir(tmp_path)
    for path, name in parameters_of_each_kind():
        for value in VALUES:
            with tally.attempt(f"{path.stem} -p {name} {value[:60]!r}"):
                check_value(path, name, value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("chapter", ["02", "04"])
def test_names_of_parameters(tally, chapter):
    """Names of parameters, profiles and chapters on the command line"""
    path = checkout.find_chapter(chapter)
    for name in NAMES:
        with tally.attempt(f"parameter {name[:60]!r}"):
            refusal(parameters.choose, path, "quick", [(name, "1")])
        with tally.attempt(f"profile {name[:60]!r}"):
            refusal(parameters.read_profile, name)
        with tally.attempt(f"chapter {name[:60]!r}"):
            if name != "1":
                refusal(checkout.find_chapter, name)


# ---------------------------------------------------------------- profiles


def test_profiles(tally, chapter, tmp_path, monkeypatch):
    """Malformed profiles"""
    path = chapter("raise SystemError('must not run')").path
    profile = path.parent / "profiles" / "tiny.yml"
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    kinds = parameters.read_parameters(path)
    for words, content in PROFILES.items():
        if isinstance(content, str):
            content = content.encode("utf-8", "surrogatepass")
        profile.write_bytes(content)
        with tally.attempt(words), limited():
            try:
                chosen = parameters.choose(path, "tiny", [])
            except checkout.UsageError as error:
                check_line(error)
                assert len(str(error)) < 10_000, "a message that nobody can read"
            else:
                for name, value in chosen.items():
                    assert parameters.is_a(value, kinds[name].type)
    assert not list(Path().iterdir())


def test_places_of_profiles(tally, chapter):
    """Profiles that are no files"""
    path = chapter("1").path
    profile = path.parent / "profiles" / "tiny.yml"

    def check(words):
        with tally.attempt(words):
            refusal(parameters.choose, path, "tiny", [],
                    errors=(checkout.UsageError, OSError))

    profile.unlink()
    check("nothing")
    profile.symlink_to("tiny.yml")
    check("itself")
    profile.unlink()
    profile.symlink_to("nowhere.yml")
    check("dangling")
    profile.unlink()
    profile.mkdir()
    check("folder")


# ---------------------------------------------------------------- notebooks


def check_differences(one, other):
    """Check that what ``diff`` says about two runs is lines that can be printed."""
    try:
        with limited(10):
            lines = diff.differences(one, other)
    except ValueError as error:
        check_line(error)
        assert len(str(error)) < 10_000, "a message that nobody can read"
        return
    for line in lines:
        check_line(line)


def test_notebooks(tally, tmp_path):
    """Notebooks that are compared"""
    sound = tmp_path / "sound.ipynb"
    sound.write_text(json.dumps(notebook()))
    path = tmp_path / "hostile.ipynb"
    for words, text in (*changed_notebooks(), *odd_notebooks()):
        path.write_text(text, "utf-8")
        with tally.attempt(words):
            check_differences(sound, path)
            check_differences(path, sound)
            check_differences(path, path)


def test_long_notebooks(tally, tmp_path):
    """Notebooks of many claims, cells and outputs"""
    claim = notebook()["cells"][0]["outputs"][0]["metadata"]["wcka"]["claims"][0]
    claims = [{**claim, "where": str(i), "found": "0 (0 to 0)"} for i in range(20_000)]
    many_claims = notebook()
    many_claims["cells"][0]["outputs"][0]["metadata"]["wcka"]["claims"] = claims
    many_outputs = notebook()
    many_outputs["cells"][0]["outputs"] *= 5000
    many_cells = notebook()
    many_cells["cells"] *= 2000
    large = notebook()
    large["cells"][0]["outputs"][0]["data"] = {"text/plain": "x" * 20_000_000}
    paths = [tmp_path / f"{i}.ipynb" for i in range(2)]
    for words, content in (("claims", many_claims), ("outputs", many_outputs),
                           ("cells", many_cells), ("large", large)):
        paths[0].write_text(json.dumps(content))
        paths[1].write_text(json.dumps(content).replace("holds", "fails"))
        with tally.attempt(words), limited(60):
            assert diff.differences(*paths)


def test_places_of_notebooks(tally, tmp_path):
    """Paths of a notebook that are no file"""
    sound = tmp_path / "sound.ipynb"
    sound.write_text(json.dumps(notebook()))
    for words, path in odd_places(tmp_path).items():
        if words.startswith(("pipe", "socket", "device", "link")):
            continue  # a pipe or a terminal waits, as it does for any program
        with tally.attempt(words):
            check_differences(sound, path)
            check_differences(path, sound)
    for name in (f"1{ESCAPE}", "1a\nb", "1\u202e", "1\udc80", "1" + "x" * 200):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir(exist_ok=True)
            verdict = "holds" if folder == "a" else "fails"
            path = tmp_path / folder / f"{name}.ipynb"
            path.write_text(json.dumps(notebook(verdict=verdict)))
            (tmp_path / folder / f"{name} {folder}.ipynb").write_text(path.read_text())
        with tally.attempt(f"chapter {name!r}"):
            check_differences(tmp_path / "a", tmp_path / "b")


# ----------------------------------------------------------------------- cached results


def table_of(n):
    """Return a table with floats of all digits, texts, gaps and categories."""
    generator = np.random.default_rng(n)
    values = generator.normal(size=n) * 10.0 ** generator.integers(-300, 300, n)
    values[:3] = math.nan, math.inf, -0.0
    return pd.DataFrame({
        "value": values, "count": generator.integers(-2**62, 2**62, n),
        "name": ["é\n"] * (n - 1) + [None], "right": [True, False] * (n // 2),
        "kind": pd.Categorical(["x", "y"] * (n // 2)),
        "half": values.astype("float32")})


def tensor_of(n):
    generator = torch.Generator().manual_seed(n)
    return torch.randn(4, n, generator=generator).mT


def population_of(n):
    population = initialise({"factory": "mlp", "widths": [3, 2]}, seeds=list(range(n)))
    population.members["rate"] = [1 / (3 + i) * 10.0 ** -i for i in range(n)]
    population.members["name"] = ["a", ESCAPE] * (n // 2)
    population.members.attrs["share"] = 1 / 3
    return population


def check_same_table(first, second):
    """Check that two tables are equal to the bit, but for the seconds they took."""
    pd.testing.assert_frame_equal(
        first, second, check_exact=True, check_categorical=True, check_flags=False)
    for name in first.select_dtypes("number"):
        assert first[name].to_numpy().tobytes() == second[name].to_numpy().tobytes()


def check_same(first, second):
    """Check that two results are equal to the bit, but for the seconds they took."""
    if isinstance(first, pd.DataFrame):
        return check_same_table(first, second)
    if isinstance(first, Population):
        assert first.architecture == second.architecture
        check_same_table(first.members, second.members)
        assert first.state.keys() == second.state.keys()
        for name in first.state:
            check_same(first.state[name], second.state[name])
        return None
    assert first.dtype == second.dtype and first.shape == second.shape
    assert first.contiguous().numpy().tobytes() == second.contiguous().numpy().tobytes()


class Kept:
    """A result on disk, its file, and what it should be."""

    def __init__(self, compute, folder):
        self.function = cache.cached(compute)
        self.right = compute(6)
        self.folder = folder
        for n in (6, 8):
            self.function(n)
        paths = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        self.path, self.other = paths
        self.content = self.path.read_bytes()
        os.environ["WCKA_CACHE"] = str(folder)

    def check(self, quiet=False):
        """Check the result, and that nothing is said about it if that is wanted."""
        with warnings.catch_warnings(record=True) as caught, limited():
            warnings.simplefilter("always")
            result = self.function(6)
        check_same(result, self.right)
        for warning in caught:
            check_line(warning.message)
        assert not (quiet and caught), caught[0].message

    def restore(self):
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)
        self.path.write_bytes(self.content)


RESULTS = pytest.mark.parametrize("compute", [table_of, tensor_of, population_of])


@pytest.fixture
def kept(tmp_path, monkeypatch, compute):
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setenv("WCKA_CACHE", str(folder))
    return Kept(compute, folder)


@RESULTS
def test_sound_results(tally, kept):
    """Cached results that are sound, read to the bit"""
    with tally.attempt(kept.function.__name__):
        kept.check(quiet=True)
    with tally.attempt("read"):
        check_same(cache._read(kept.path), cache._read(kept.path))
        check_same(cache._read(kept.path), kept.right)


@RESULTS
def test_flipped_bytes_of_results(tally, kept):
    """Cached results with a byte changed"""
    generator = random.Random(3)
    for position in generator.sample(range(len(kept.content)), 150):
        damaged = bytearray(kept.content)
        damaged[position] ^= 1 << generator.randrange(8)
        kept.path.write_bytes(damaged)
        with tally.attempt(f"{kept.function.__name__}, byte {position}"):
            kept.check()


@RESULTS
def test_truncated_results(tally, kept):
    """Cached results that are truncated, empty, garbage, or longer"""
    generator = random.Random(4)
    size = len(kept.content)
    contents = [kept.content[:length] for length in generator.sample(range(size), 60)]
    contents += [b"", bytes(size), generator.randbytes(size), kept.content * 2,
                 kept.content + b"\0", b"PAR1" * 9, b"PK\x03\x04", kept.content[::-1]]
    for number, content in enumerate(contents):
        kept.path.write_bytes(content)
        with tally.attempt(f"{kept.function.__name__} {number}, {len(content)} bytes"):
            kept.check()


def replace_by_other_result(kept):
    kept.path.write_bytes(kept.other.read_bytes())


def replace_by_foreign_table(kept):
    pd.DataFrame({"values": [1.0]}).to_parquet(kept.path)


def replace_by_foreign_tensors(kept):
    safetensors.torch.save_file({"values": torch.ones(3)}, kept.path)


def replace_by_folder(kept):
    kept.path.mkdir()


def replace_by_full_folder(kept):
    kept.path.mkdir()
    (kept.path / "file").touch()


def replace_by_pipe(kept):
    os.mkfifo(kept.path)


def replace_by_nothing(kept):
    pass


def put_folder_beside(kept):
    kept.folder.joinpath(f".{kept.path.stem}.{os.getpid()}.partial").mkdir()


def replace_by_link(target):
    def replace(kept):
        kept.path.symlink_to(target or kept.path.name)

    replace.__name__ = f"replace_by_link_to_{target or 'itself'}"
    return replace


REPLACEMENTS = [
    replace_by_other_result, replace_by_foreign_table, replace_by_foreign_tensors,
    replace_by_folder, replace_by_full_folder, replace_by_pipe, replace_by_nothing,
    put_folder_beside, replace_by_link("nowhere"), replace_by_link(""),
    replace_by_link("/dev/null"), replace_by_link("/dev/zero"), replace_by_link("."),
]


@RESULTS
def test_places_of_results(tally, kept):
    """Cached results in whose place something else stands"""
    for replace in REPLACEMENTS:
        kept.path.unlink()
        replace(kept)
        with tally.attempt(f"{kept.function.__name__}: {replace.__name__}"):
            kept.check()
        kept.restore()


@RESULTS
def test_folders_of_results_that_change(tally, tmp_path, monkeypatch, compute):
    """Folders of cached results that vanish or change while a result is computed"""
    right = compute(6)
    folder = tmp_path / "results"
    monkeypatch.setenv("WCKA_CACHE", str(folder))

    def vanish():
        shutil.rmtree(folder)

    def become_a_file():
        shutil.rmtree(folder)
        folder.touch()

    def become_a_loop():
        shutil.rmtree(folder)
        folder.symlink_to(folder.name)

    changes = {"vanish": vanish, "file": become_a_file, "loop": become_a_loop}

    @cache.cached
    def computed(n, change):
        changes[change]()
        return compute(n)

    for change in changes:
        with tally.attempt(f"{compute.__name__}: {change}"), limited():
            check_same(computed(6, change), right)
        if folder.is_symlink() or folder.is_file():
            folder.unlink()


# -------------------------------------------------------------------- on the terminal


def printed_by(capsys, *arguments):
    """Return the status of a command and what it printed."""
    with limited(60):
        status = cli.main(list(map(str, arguments)))
    printed = capsys.readouterr()
    for line in (printed.out + printed.err).split("\n"):
        assert line.isprintable(), repr(line[:200])
    return status, printed.out


def check_json(capsys, paths, layers=()):
    """Check that ``compare --json`` gives names back, as messages show them."""
    status, out = printed_by(capsys, "compare", *paths, "--json")
    assert status == 0
    result = json.loads(out)
    names = [printable(str(path)) for path in paths]
    assert result["files"] == names
    assert list(result["chains"]) == list(dict.fromkeys(names))
    if layers:
        chain = result["chains"][names[0]]
        assert [layer["name"] for layer in chain] == layers
        assert list(result["layers"]) == layers


def test_names_of_tensors_on_the_terminal(tally, compared, capsys):
    """Names of tensors and keys on the terminal and in JSON"""
    for name in FORGED:
        layers = [f"{name}.0.weight", f"{name}.1.weight"]
        state = dict(zip(layers, (torch.randn(8, 12), torch.randn(3, 8))))
        path = compared.folder / "names.pt"
        with tally.attempt(f"tensor {name!r}"):
            torch.save(state, path)
            assert printed_by(capsys, "compare", path, compared.reference)[0] == 0
            check_json(capsys, [path, compared.reference], layers)
        for content in ({name: state}, {name: state, "b": state}, {name: 1},
                        {name: {name: {name: 1}}}, {**state, name: torch.ones(2, 2, 2)},
                        {**state, f"{name}.qweight": 1}):
            with tally.attempt(f"key {name!r} of {len(content)}"):
                torch.save(content, path)
                printed_by(capsys, "compare", path, compared.reference)
                printed_by(capsys, "compare", path, path, "--key", name)
                printed_by(capsys, "compare", path, path, "--order", name)
        with tally.attempt(f"architecture {name!r}"):
            printed_by(capsys, "compare", path, path, "--arch", name)
            printed_by(capsys, "compare", path, path, "--arch", f"torchvision:{name}")
            printed_by(capsys, "compare", path, path, "--stored", name)
            printed_by(capsys, "compare", path, path, "--freeze", name)


# Names that a file can have
NAMES_OF_FILES = [name for name in FORGED if not re.search("\0|\ud800|a{200}", name)]


def is_readable(name):
    """Tell whether torch and safetensors can open a file of that name."""
    return "\udc80" not in name


def test_names_of_files_on_the_terminal(tally, compared, capsys):
    """Names of files on the terminal and in JSON"""
    contents = {".pt": compared.reference.read_bytes(),
                ".safetensors": safetensors.torch.save(compared.state)}
    for name, ending in itertools.product(NAMES_OF_FILES, contents):
        path = compared.folder / f"{name}{ending}"
        path.write_bytes(contents[ending])
        with tally.attempt(f"file {path.name!r}"):
            status, _ = printed_by(capsys, "compare", path, compared.reference)
            assert status == (0 if is_readable(name) else 2)
            if is_readable(name):
                check_json(capsys, [path, compared.reference])
        path.write_bytes(contents[ending][:100])
        with tally.attempt(f"damaged file {path.name!r}"):
            assert printed_by(capsys, "compare", path, compared.reference)[0] == 2
        path.unlink()
        with tally.attempt(f"missing file {path.name!r}"):
            assert printed_by(capsys, "compare", path, compared.reference)[0] == 2


def test_names_of_folders_on_the_terminal(tally, compared, capsys):
    """Names of folders on the terminal"""
    for name in NAMES_OF_FILES:
        folder = compared.folder / f"{name} folder"
        folder.mkdir()
        for file in ("a.pt", "b.pt"):
            shutil.copy(compared.reference, folder / f"{name}{file}")
        (folder / f"{name}.ckpt").write_bytes(b"x")
        with tally.attempt(f"folder {name!r}"):
            status, _ = printed_by(capsys, "compare", folder)
            assert status == (0 if is_readable(name) else 2)
        with tally.attempt(f"folder {name!r} and a file"):
            status, _ = printed_by(capsys, "compare", folder, compared.reference)
            assert status == 2
        for file in (folder, folder / "1.ipynb", folder / f"{name}a.pt"):
            with tally.attempt(f"diff of {file.name!r}"):
                assert printed_by(capsys, "diff", file, folder)[0] == 2


def test_arguments_on_the_terminal(tally, chapter, capsys):
    """Arguments of commands on the terminal"""
    path = chapter("raise SystemError('must not run')").path
    for name in FORGED:
        for arguments in (["params", name], ["run", name], ["run", "07", "-p", name,
                  "1"],
                          ["run", "07", "-p", "seeds", name], ["data", name],
                          ["run", "07", "--profile", name], ["book", "--profile", name],
                          ["run", "07", "-o", f"{name}.txt"]):
            with tally.attempt(f"{arguments}"):
                assert printed_by(capsys, *arguments)[0] == 2
        for arguments in ([f"-{name}"], [name], ["compare", f"--{name}"], ["diff",
                  name],
                          ["compare", "a", "b", "--input-shape", name]):
            with tally.attempt(f"{arguments}"):
                with contextlib.suppress(SystemExit):  # by which argparse refuses
                    assert cli.main(arguments) == 2
                for line in capsys.readouterr().err.split("\n"):
                    assert line.isprintable(), repr(line[:200])
    path.write_text(path.read_text().replace("# models", f"# models {ESCAPE}"))
    with tally.attempt("comment"):
        assert printed_by(capsys, "params", "07")[0] == 0


# -------------------------------------------------------------------------- processes


def test_refusals_of_processes(tally, compared):
    """Commands that are refused in a process of their own"""
    folder = compared.folder
    good = compared.reference
    code = hostile.call_of("os mkdir", (str(compared.marker),))
    (folder / "code.pt").write_bytes(hostile.archive(hostile.PLACES["value"](code)))
    (folder / "cut.pt").write_bytes(good.read_bytes()[:700])
    (folder / "hostile.ipynb").write_text(json.dumps(notebook(found=5)))
    (folder / "shape.ipynb").write_text(json.dumps({**notebook(), "cells": {}}))
    pipe = folder / "pipe.pt"
    os.mkfifo(pipe)
    calls = [
        (2, "compare", good, folder / "code.pt"), (2, "compare", good,
        folder / "cut.pt"),
        (2, "compare", good, pipe), (2, "compare", good, "/dev/zero"),
        (2, "compare", good, folder / f"{ESCAPE}.pt"), (2, "compare", good,
        "a\udc80.pt"),
        (2, "diff", folder / "hostile.ipynb", folder / "hostile.ipynb"),
        (2, "diff", folder / "shape.ipynb", folder / "shape.ipynb"),
        (2, "params", ESCAPE), (2, "run", "01", "-p", "seed", "not " * 30_000 + "1"),
        (2, "run", "01", "-p", "seed", CODE), (2, "run", "01", "--profile", "a\nb"),
        (2, "run", "02", "-p", "learning_rate", "1" + "0" * 400),
    ]
    for status, *arguments in calls:
        words = " ".join(str(argument)[-40:] for argument in arguments)
        with tally.attempt(repr(words)):
            check_refused(run_wcka(*arguments), status)
    assert not compared.marker.exists()
