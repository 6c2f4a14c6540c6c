"""Checkpoints that a stranger could send: each with its name and its bytes."""

import io
import itertools
import json
import pickle
import struct
import tempfile
import zipfile
from collections import OrderedDict

import numpy as np
import torch

# Where an archive tries to write, outside its folder
ABSOLUTE = f"{tempfile.gettempdir()}/absolute"

# ------------------------------------------------------------------ pickles with calls


def calls(marker, script):
    """Return calls that would leave a file behind: by module and name, the arguments.

    The script is a Python file that leaves the same mark.
    """
    shell = f"touch {marker}"
    code = f"open({marker!r}, 'w')"
    return {
        "os system": (shell,), "posix system": (shell,), "nt system": (shell,),
        "os popen": (shell,), "os mkdir": (marker,), "os rename": (script, marker),
        "os link": (script, marker), "os symlink": (script, marker),
        "subprocess Popen": (["touch", marker],),
        "subprocess call": (["touch", marker],),
        "subprocess run": (["touch", marker],),
        "subprocess check_output": (["touch", marker],),
        "subprocess getoutput": (shell,), "commands getoutput": (shell,),
        "pty spawn": (["touch", marker],),
        "builtins eval": (code,), "builtins exec": (code,),
        "__builtin__ eval": (code,), "__builtin__ execfile": (script,),
        "builtins open": (marker, "w"), "builtins __import__": ("antigravity",),
        "builtins getattr": (marker, "upper"), "builtins setattr": (marker, "a", 1),
        "builtins compile": (code, "", "exec"), "io open": (marker, "w"),
        "_io FileIO": (marker, "w"), "io open_code": (script,),
        "runpy run_path": (script,), "runpy _run_code": (code, {}),
        "runpy run_module": ("this",), "importlib import_module": ("this",),
        "pkgutil resolve_name": ("os:system",), "operator attrgetter": ("system",),
        "operator methodcaller": ("system", shell), "functools partial": (eval, code),
        "functools reduce": (eval, [code]), "timeit timeit": (code,),
        "cProfile run": (code,), "profile run": (code,), "pdb run": (code,),
        "trace Trace": (), "bdb Bdb": (), "code interact": (), "types CodeType": (),
        "types FunctionType": (), "marshal loads": (b"N",),
        "pickle loads": (b"N.",), "_pickle loads": (b"N.",),
        "shutil copyfile": (script, marker), "shutil rmtree": (marker,),
        "shutil move": (script, marker), "tempfile mkdtemp": (marker,),
        "logging FileHandler": (marker,), "logging.config listen": (),
        "zipfile ZipFile": (marker, "w"), "sqlite3 connect": (marker,),
        "shelve open": (marker,), "ctypes CDLL": ("libc.so.6",),
        "urllib.request urlretrieve": (f"file://{script}", marker),
        "socket create_server": ((("127.0.0.1", 0),)),
        "multiprocessing.util spawnv_passfds": (b"touch", ["touch", marker], []),
        "numpy save": (marker, [1]), "numpy savetxt": (marker, [1]),
        "numpy load": (script,), "numpy fromfile": (script,), "numpy memmap": (marker,),
        "numpy.testing._private.utils runstring": (code, {}),
        "pandas read_pickle": (script,), "torch save": ([], marker),
        "torch load": (script,), "torch.jit load": (script,),
        "torch.hub load": (script, "x"), "torch.classes load_library": (script,),
        "torch.ops load_library": (script,), "torch._dynamo optimize": (),
        "torch._C _jit_get_operation": ("aten::save",),
        "torch.serialization load": (script,), "torch.package PackageImporter": (),
    }


def call_of(name, arguments):
    """Return the opcodes of a pickle that call a function."""
    module, _, function = name.partition(" ")
    head = f"c{module}\n{function}\n".encode()
    return head + pickle.dumps(arguments, 2)[2:-1] + b"R"


def text(name):
    """Return the opcodes of a pickle that put a text on its stack."""
    content = name.encode()
    return b"X" + struct.pack("<I", len(content)) + content


ORDERED = b"ccollections\nOrderedDict\n)R"
# What files of torch began with before they were zip archives
MAGIC = b"".join(pickle.dumps(value, 2) for value in (
    0x1950A86A20F9469CFC6C, 1001,
    {"protocol_version": 1001, "little_endian": True,
     "type_sizes": {"short": 2, "int": 4, "long": 4}}))

# Where the opcodes of a call may stand in a pickle
PLACES = {
    "alone": lambda call: b"\x80\x02" + call + b".",
    "value": lambda call: b"\x80\x02}" + text("a.weight") + call + b"s.",
    "key": lambda call: b"\x80\x02}" + call + b"K\x01s.",
    "nested": lambda call: b"\x80\x02}" + text("model") + b"]((" + call + b"ttas.",
    "persistent": lambda call: b"\x80\x02}" + text("a") + call + b"Qs.",
    "state": lambda call: (
        b"\x80\x02" + ORDERED + b"}" + text("_metadata") + call + b"sb."),
    "popped": lambda call: b"\x80\x02" + call + b"0}" + text("a") + b"K\x01s.",
}


def archive(pickled, storages=(), more=()):
    """Return what ``torch.save`` writes around a pickle, with these storages."""
    members = [("a/data.pkl", pickled), ("a/byteorder", b"little")]
    for number, storage in enumerate(storages):
        members.append((f"a/data/{number}", storage))
    members += [("a/version", b"3\n"), *more]
    return zipped(members)


def old(pickled, storage):
    """Return what ``torch.save`` wrote in the past: pickles, then the storage 0."""
    key = pickle.dumps(["0"], 2)
    return MAGIC + pickled + key + struct.pack("<q", len(storage) // 4) + storage


def zipped(members, method=zipfile.ZIP_STORED):
    """Return a zip archive of pairs of a name and bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as target:
        for name, content in members:
            target.writestr(name, content)
    return file.getvalue()


def pickles_with_calls(marker, script):
    """Yield checkpoints that would call a function where pickles are obeyed."""
    for name, arguments in calls(marker, script).items():
        call = call_of(name, arguments)
        for place in ("alone", "value", "state"):
            yield f"{name} {place}.pt", archive(PLACES[place](call))
    for name in ("os system", "builtins eval", "builtins getattr", "runpy run_path"):
        arguments = calls(marker, script)[name]
        call = call_of(name, arguments)
        for place, pickled in PLACES.items():
            yield f"{name} {place}, old.pt", pickled(call)
            yield f"{name} {place}, old with magic.bin", MAGIC + pickled(call)
            yield f"{name} {place}.ckpt", archive(pickled(call))
            yield f"{name} {place}.safetensors", archive(pickled(call))
        yield from _other_opcodes(name, arguments)


def _other_opcodes(name, arguments):
    """Yield pickles that call by other opcodes than GLOBAL and REDUCE."""
    module, _, function = name.partition(" ")
    opcodes = pickle.dumps(arguments, 2)[2:-1]
    inner = pickle.dumps(arguments[0], 2)[2:-1]
    by_stack = text(module) + text(function) + b"\x93"
    by_name = f"c{module}\n{function}\n".encode()
    variants = {
        "STACK_GLOBAL": b"\x80\x04" + by_stack + opcodes + b"R.",
        "INST": b"(" + inner + f"i{module}\n{function}\n.".encode(),
        "OBJ": b"(" + by_name + inner + b"o.",
        "NEWOBJ": b"\x80\x02" + by_name + opcodes + b"\x81.",
        "NEWOBJ_EX": b"\x80\x04" + by_name + opcodes + b"}\x92.",
        "BUILD": b"\x80\x02" + ORDERED + by_name + b"b.",
        "EXT1": b"\x80\x02\x82\x01.",
        "memo": b"\x80\x02" + by_name + b"q\x000h\x00" + opcodes + b"R.",
        "frame": b"\x80\x04\x95" + b"\xff" * 8 + by_name + opcodes + b"R.",
    }
    for words, pickled in variants.items():
        yield f"{name} by {words}.pt", archive(pickled)
        yield f"{name} by {words}, old.pt", pickled


# ------------------------------------------------------------------ pickles that lie


class Storage:
    """A storage of a checkpoint, as ``torch.save`` refers to it."""

    def __init__(self, *reference):
        self.reference = reference


class Recipe:
    """A value that is pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class StoragePickler(pickle.Pickler):
    """A pickler of storages; references of old files end in one entry more."""

    more: tuple = ()

    def persistent_id(self, value):
        return value.reference + self.more if isinstance(value, Storage) else None


def weight(size, stride, offset=0, **changes):
    """Return a state dict with one tensor of storage 0, which holds 96 floats."""
    reference = {
        "kind": "storage", "type": torch.FloatStorage, "key": "0",
        "location": "cpu", "count": 96, **changes}
    tensor = Recipe(
        torch._utils._rebuild_tensor_v2, Storage(*reference.values()), offset, size,
        stride, False, OrderedDict())
    return {"a.weight": tensor}


def pickled(content, more=()):
    """Return the pickle of a content, or the content if it is one already."""
    if isinstance(content, bytes):
        return content
    file = io.BytesIO()
    pickler = StoragePickler(file, 2)
    pickler.more = more
    pickler.dump(content)
    return file.getvalue()


def pickles_that_lie(state):
    """Yield checkpoints whose pickles claim what is not there."""
    storage = state["0.weight"].numpy().tobytes()
    lies = {
        "beyond": weight((80, 12), (12, 1)),
        "offset": weight((8, 12), (12, 1), 1000),
        "offset below": weight((8, 12), (12, 1), -8),
        "offset huge": weight((8, 12), (12, 1), 2**63 - 1),
        "stride below": weight((8, 12), (-12, 1)),
        "stride huge": weight((8, 12), (2**62, 1)),
        "stride few": weight((8, 12), (1,)),
        "size below": weight((-8, 12), (12, 1)),
        "size huge": weight((2**40, 2**40), (12, 1)),
        "size of everything": weight((2**20, 2**20), (0, 0)),
        "size of text": weight(("8", "12"), (12, 1)),
        "size of floats": weight((8.0, 12.0), (12, 1)),
        "size nested": weight(((8,), 12), (12, 1)),
        "size beyond 64 bits": weight((2**70, 12), (12, 1)),
        "size none": weight(None, None),
        "many dimensions": weight((1,) * 100, (1,) * 100),
        "no storage": weight((8, 12), (12, 1), key="77"),
        "storage above": weight((8, 12), (12, 1), key="../data.pkl"),
        "storage of pickle": weight((8, 12), (12, 1), key="../../a/data.pkl"),
        "storage of text": weight((8, 12), (12, 1), count="96"),
        "storage short": weight((8, 12), (12, 1), count=2),
        "storage long": weight((8, 12), (12, 1), count=2**40),
        "storage below": weight((8, 12), (12, 1), count=-96),
        "other kind": weight((8, 12), (12, 1), kind="module"),
        "other type": weight((8, 12), (12, 1), type=torch.DoubleStorage),
        "no type": weight((8, 12), (12, 1), type=OrderedDict),
        "other place": weight((8, 12), (12, 1), location="cuda:99"),
        "no place": weight((8, 12), (12, 1), location=None),
        "meta": weight((8, 12), (12, 1), location="meta"),
        "reference": {"a.weight": Storage("storage")},
        "reference to nothing": {"a.weight": Storage()},
        "no arguments": {"a": Recipe(torch._utils._rebuild_tensor_v2)},
        "recursive": b"\x80\x02}q\x00" + text("a.weight") + b"h\x00s.",
        "recursive list": b"\x80\x02]q\x00h\x00a.",
        "deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "deep tuple": b"\x80\x02)" + b"\x85" * 100_000 + b".",
        "deep dict": b"\x80\x02" + (b"}" + text("a")) * 50_000 + b"N"
                     + b"s" * 50_000 + b".",
        "stack below": b"\x80\x02a.", "no stop": b"\x80\x02}", "only stop": b".",
        "nothing": b"", "zeros": bytes(1000), "proto": b"\x80\xff}.",
        "memo": b"\x80\x02j\xff\xff\xff\xff.", "mark": b"\x80\x02(((t.",
        "long text": b"\x80\x02X\xff\xff\xff\xffabc.",
        "long number": b"\x80\x02\x8b\xff\xff\xff\x7f1.",
        "long bytes": b"\x80\x04\x8e" + b"\xff" * 8 + b"abc.",
        "surrogates": b"\x80\x02}X\x03\x00\x00\x00\xed\xb2\x80K\x01s.",
    }
    for name, content in lies.items():
        yield f"pickle lies, {name}.pt", archive(pickled(content), [storage])
        yield f"pickle lies, {name}.bin", old(pickled(content, (None,)), storage)


def shared_dicts(depth=12, width=40):
    """Return nested dicts that a small pickle holds, though few computers would."""
    tree = {"a.bias": 1}
    for _ in range(depth):
        tree = dict.fromkeys((f"k{i}" for i in range(width)), tree)
    return tree


def shared_lists(depth=12, width=40):
    """Return nested lists of one tensor, as ``shared_dicts`` returns dicts."""
    tree = [torch.ones(2)]
    for _ in range(depth):
        tree = [tree] * width
    return tree


# ------------------------------------------------------------------ archives


def members_of(content):
    """Return the members of a zip archive: pairs of a name and bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        return [(item.filename, source.read(item)) for item in source.infolist()]


def changed(content, **changes):
    """Return a .pt archive with other contents of some members; None leaves one out."""
    members = []
    for name, values in members_of(content):
        values = changes.get(name.partition("/")[2], values)
        if values is not None:
            members.append((name, values))
    return zipped(members)


def archives_that_lie(sound, evil):
    """Yield .pt archives around sound weights, with something wrong about them."""
    members = members_of(sound)
    folder = members[0][0].partition("/")[0]
    pickle_member = members[0][1]
    for name in ("data.pkl", "data/0", "data/2", "byteorder", "version"):
        content = dict(members)[f"{folder}/{name}"]
        for words, values in {
            "missing": None, "empty": b"", "cut": content[:-1], "long": content + b"xx",
            "text": b"x" * (len(content) + 1), "huge": bytes(3_000_000),
        }.items():
            yield f"{name.replace('/', ' ')} {words}.pt", changed(
                sound, **{name: values})
    extra = {
        "above": (f"{folder}/../../above", b"x"), "absolute": (ABSOLUTE, b"x"),
        "backslash": ("..\\..\\above", b"x"), "twice": members[0],
        "evil twice": (f"{folder}/data.pkl", evil), "evil above": ("../data.pkl", evil),
        "evil elsewhere": ("b/data.pkl", evil), "evil case": (
            f"{folder}/DATA.PKL", evil), "storage twice": (
            f"{folder}/data/0", bytes(384)), "code": (f"{folder}/code/a.py", b"x"),
        "constants": (f"{folder}/constants.pkl", evil),
        "long name": ("a" * 60_000, b""),
        "escape": (f"{folder}/\x1b]0;owned\x07", b"x"), "newline": ("a\nb", b"x"),
        "folder": (f"{folder}/data/9/", b""),
    }
    for words, member in extra.items():
        yield f"extra {words}, last.pt", zipped([*members, member])
        yield f"extra {words}, first.pt", zipped([member, *members])
    yield "many members.pt", zipped(
        [*members, *((f"{folder}/extra/{i}", b"") for i in range(20_000))])
    yield "only pickle.pt", zipped([(f"{folder}/data.pkl", pickle_member)])
    yield "no folder.pt", zipped([("data.pkl", pickle_member), *members[1:]])
    yield "two folders.pt", zipped([*members, *(("b" + n, v) for n, v in members)])
    yield "no members.pt", zipped([])
    yield "zip in zip.pt", zipped([(f"{folder}/data.pkl", sound)])
    yield "bomb.pt", zipped(
        [*members, (f"{folder}/bomb", bytes(200_000_000))], zipfile.ZIP_DEFLATED)
    yield "before.pt", b"#!/bin/sh\n" * 9 + sound
    yield "behind.pt", sound + b"x" * 1000
    yield "comment.pt", sound[:-2] + b"\xff\xff" + b"c" * 0xFFFF
    yield from _zip_fields(sound)


# Offsets and formats of fields in an entry of a zip archive's directory, and at its end
DIRECTORY = {"flags": (8, "<H"), "method": (10, "<H"), "checksum": (16, "<I"),
             "packed": (20, "<I"), "size": (24, "<I"), "name length": (28, "<H"),
             "extra length": (30, "<H"), "offset": (42, "<I")}
END = {"disk": (4, "<H"), "entries here": (8, "<H"), "entries": (10, "<H"),
       "directory size": (12, "<I"), "directory offset": (16, "<I"),
       "comment length": (20, "<H")}


def _zip_fields(sound):
    """Yield archives in which one field of the zip format lies."""
    entry = sound.index(b"PK\x01\x02")
    while b"data/0" not in sound[entry:entry + 60]:
        entry = sound.index(b"PK\x01\x02", entry + 1)
    end = sound.rindex(b"PK\x05\x06")
    fields = [(entry, name, field) for name, field in DIRECTORY.items()]
    fields += [(end, name, field) for name, field in END.items()]
    for start, name, (offset, form) in fields:
        for value in (0, 1, 8, 2 ** (8 * struct.calcsize(form)) - 1):
            content = bytearray(sound)
            struct.pack_into(form, content, start + offset, value)
            yield f"zip {name} {value}.pt", bytes(content)
    yield from _changed_pickles(sound)


def _changed_pickles(sound):
    """Yield archives whose pickles no longer fit their checksums, all bits in turn.

    Left out are the places whose bytes only name things.
    """
    start = sound.index(b"\x80\x02")
    size = len(members_of(sound)[0][1])
    for position in range(start, start + size):
        if sound[position - 1] not in b"KX":
            continue
        for bit in range(8):
            content = bytearray(sound)
            content[position] ^= 1 << bit
            yield f"pickle byte {position - start}, bit {bit}.pt", bytes(content)


# ------------------------------------------------------------------ safetensors


def safetensors(header, data=bytes(384), length=None):
    """Return a safetensors file; the header is JSON or already text or bytes."""
    if not isinstance(header, (str, bytes)):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    if length is None:
        length = len(header)
    return struct.pack("<Q", length % 2**64) + header + data


def entry(**changes):
    """Return the header's entry of a weight of 8 rows and 12 columns."""
    return {"dtype": "F32", "shape": [8, 12], "data_offsets": [0, 384], **changes}


def headers_that_lie(state):
    """Yield safetensors files whose headers claim what is not there."""
    data = state["0.weight"].numpy().tobytes()
    for length in (0, 1, 7, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1):
        yield f"length {length}.safetensors", safetensors(
            {"a.weight": entry()}, data, length)
    lies = {
        f"shape {shape}": {"a.weight": entry(shape=shape)} for shape in (
            [8], [8, 13], [-8, -12], [2**32, 2**32], [2**62, 4], [2**64, 1], [8.0, 12],
            ["8", 12], [[8], 12], None, {}, "8, 12", [0, 12], [True, 96])}
    lies.update({
        f"offsets {offsets}": {"a.weight": entry(data_offsets=offsets)} for offsets in (
            [384, 0], [-384, 0], [0, 2**63], [2**63, 2**63 + 384], [2**64, 0], [4, 388],
            [0, 383], [0, 385], [0], [0, 384, 1], None, [0.0, 384.0], "0, 384", {})})
    lies.update({
        f"type {kind}": {"a.weight": entry(dtype=kind)} for kind in (
            "f32", "F33", "", None, 32, "I32", "U32", "BOOL", "F16", "F64", "F8_E4M3",
            "C64", "O", "F4", "\x1b[31m")})
    right = json.dumps(entry())
    turned = json.dumps(entry(shape=[12, 8]))
    other = {"b.weight": entry(shape=[3, 8], data_offsets=[384, 480])}
    lies.update({
        "overlap": {"a.weight": entry(), "b.weight": entry(data_offsets=[4, 388])},
        "same": {"a.weight": entry(), "b.weight": entry()},
        "hole": {"a.weight": entry(), "b.weight": entry(data_offsets=[400, 784])},
        "one beyond": {"a.weight": entry(), **other},
        "alias": {"__metadata__": {"a.weight": "a.weight", "b": "c", "c": "b"},
                  "a.weight": entry()},
        "metadata list": {"__metadata__": [], "a.weight": entry()},
        "metadata of numbers": {"__metadata__": {"a": 1}, "a.weight": entry()},
        "no tensor": {}, "only metadata": {"__metadata__": {"a": "b"}},
        "list": [], "number": 5, "entry a list": {"a.weight": []}, "text": '"a"',
        "entry none": {"a.weight": None}, "entry empty": {"a.weight": {}},
        "more fields": {"a.weight": entry(more=1)},
        "twice": f'{{"a.weight": {right}, "a.weight": {right}}}',
        "twice otherwise": f'{{"a.weight": {turned}, "a.weight": {right}}}',
        "deep": '{"a.weight": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "deep open": '{"a.weight": ' + "[" * 100_000,
        "not closed": '{"a.weight": ', "trailing": json.dumps({"a": entry()}) + "}}",
        "no UTF-8": b'{"\xff\xfe": {}}', "NUL": '{"a\x00": 1}', "NaN": '{"a": NaN}',
        "number huge": '{"a": 1' + "0" * 100_000 + "}",
    })
    for name, header in lies.items():
        yield f"header {name}.safetensors", safetensors(header, data)
    utf16 = json.dumps({"a.weight": entry()}).encode("utf-16")
    yield "header of UTF-16.safetensors", safetensors(utf16, data)
    yield "data missing.safetensors", safetensors({"a.weight": entry()}, b"")
    yield "data short.safetensors", safetensors({"a.weight": entry()}, data[:-1])
    yield "data long.safetensors", safetensors({"a.weight": entry()}, data + b"x")
    yield "called pt.pt", safetensors({"a.weight": entry(shape=[8, 13])}, data)


# ------------------------------------------------------------------ NumPy


def npy(header, data=bytes(384), version=1, length=None):
    """Return a .npy file with a header that is already text."""
    content = header.encode("latin-1") + b"\n"
    form = "<H" if version == 1 else "<I"
    if length is None:
        length = len(content)
    return (b"\x93NUMPY" + bytes([version, 0]) + struct.pack(form, length) + content
            + data)


def saved_array(values, **options):
    file = io.BytesIO()
    np.save(file, values, **options)
    return file.getvalue()


def arrays_that_lie(state, marker):
    """Yield .npz files whose arrays claim what is not there."""
    weight = state["0.weight"].numpy()
    data = weight.tobytes()
    head = "{'descr': %s, 'fortran_order': False, 'shape': %s, }"
    headers = {}
    for shape in ("(8, 13)", "(-8, -12)", "(2**40,)", f"({2**40}, {2**40})",
                  f"({2**62},)", f"({2**70},)", "8", "('8', 12)", "(8.0, 12)", "None",
                  "[8, 12]", f"({2**33}, 12)", "(0, 12)", "(1,) * 99",
                  "(" + "1, " * 99 + ")"):
        headers[f"shape {shape[:20]}"] = head % ("'<f4'", shape)
    for kind in ("O", "|O", "<f3", "<f16", "<c8", "<M8[s]", "|V4", "<U1", "|S4",
                 "f4,f4", "<i4", "|b1", "", "__import__('os')", "<f4\\n",
                 "(99999,)f4"):
        headers[f"type {kind}"] = head % (f'"{kind}"', "(8, 12)")
    code = f"open({marker!r}, 'w')"
    headers.update({
        "code": head % (code, "(8, 12)"), "code alone": code,
        "lambda": "{'descr': (lambda: 1)(), 'fortran_order': 0, 'shape': ()}",
        "no dict": "[]", "nothing": "", "missing": "{'descr': '<f4'}",
        "more": head.replace("}", "'more': 1}") % ("'<f4'", "(8, 12)"),
        "order": (head % ("'<f4'", "(8, 12)")).replace("False", "'no'"),
        "deep": "(" * 500 + ")" * 500, "deeper": "[" * 9000, "minus": "-" * 9000 + "1",
        "long": head % ("'<f4'", "(8, 12)") + " " * 60_000, "zeros": "\x00" * 99,
        "fields": head % ("[('a', '<f4')]", "(8, 12)"),
        "fields of fields": head % ("[('a', [('b', 'O')])]", "(8, 12)"),
    })
    members = {f"header {name}": npy(text, data) for name, text in headers.items()}
    sound = head % ("'<f4'", "(8, 12)")
    members.update({
        "version 2": npy(sound, data, 2), "version 3": npy(sound, data, 3),
        "version 9": npy(sound, data, 9), "length": npy(sound, data, 1, 65_535),
        "length huge": npy(sound, data, 2, 2**32 - 1),
        "empty": b"", "magic": b"\x93NUMPY", "text": b"weights",
        "short": npy(sound, data[:-1]), "long": npy(sound, data + b"x"),
        "objects": saved_array(np.array([{}, print]), allow_pickle=True),
        "columns first": saved_array(np.asfortranarray(weight)),
        "big-endian": saved_array(weight.astype(">f4")),
        "halves": saved_array(weight.astype("f2")),
        "scalar": saved_array(np.float32(3)), "NaN": saved_array(weight * np.nan),
        "long doubles": saved_array(weight.astype(np.longdouble)),
        "unsigned": saved_array(weight.astype(np.uint16)),
    })
    for name, content in members.items():
        yield f"array {name}.npz", zipped([("0.weight.npy", content)])
    yield "array alone.npy", saved_array(weight)
    yield "array alone.npz", saved_array(weight)
    yield "array alone.pt", saved_array(weight)
    yield "array with code.npz", saved_array(np.array([print]), allow_pickle=True)


def archives_of_arrays(state):
    """Yield .npz files of sound arrays in odd archives."""
    arrays = []
    for name, values in state.items():
        arrays.append((f"{name}.npy", saved_array(values.numpy())))
    methods = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED,
               "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}
    for name, method in methods.items():
        yield f"arrays {name}.npz", zipped(arrays, method)
    yield "arrays called pt.pt", zipped(arrays)
    yield "arrays twice.npz", zipped([*arrays, arrays[0]])
    yield "arrays above.npz", zipped([*arrays, ("../above.npy", arrays[0][1])])
    yield "arrays and more.npz", zipped([*arrays, ("more.txt", b"x")])
    yield "arrays with escape.npz", zipped([*arrays, ("\x1b[2J.npy", arrays[0][1])])
    yield "arrays many.npz", zipped(
        [*arrays, *((f"x{i}.npy", arrays[1][1]) for i in range(3000))])
    yield "arrays bomb.npz", zipped(
        [*arrays, ("bomb.npy", npy(
            "{'descr': '|u1', 'fortran_order': False, 'shape': (200000000,)}",
            bytes(200_000_000)))], zipfile.ZIP_DEFLATED)


# ------------------------------------------------------------------ sound archives anew


def rezipped(sound):
    """Yield a sound .pt as other tools pack it, and whether torch can read it."""
    members = members_of(sound)
    folder = members[0][0].partition("/")[0]
    orders = {
        "same": members, "reversed": members[::-1], "sorted": sorted(members),
        "storages first": sorted(members, key=lambda member: "data/" not in member[0])}
    extras = {
        "nothing": [], "notes": [(f"{folder}/notes.txt", b"x" * 77)],
        "odd": [(f"{folder}/x", b"x")], "resources": [("__MACOSX/._a", b"x")],
        "folder": [(f"{folder}/", b"")]}
    methods = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED,
               "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}
    for order, extra, method in itertools.product(orders, extras, methods):
        readable = method in ("stored", "deflated") and extra != "resources"
        before = zipped([*extras[extra], *orders[order]], methods[method])
        yield f"{method}, {order}, {extra} before.pt", before, readable
        after = zipped([*orders[order], *extras[extra]], methods[method])
        yield f"{method}, {order}, {extra} after.pt", after, readable
