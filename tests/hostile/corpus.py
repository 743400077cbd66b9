"""Files that strangers may write, to harm whoever loads them. `write_corpus` makes all of them in a folder."""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.checkpoint.nets import small_state
from tests.hostile.assembler import KINDS, Code, call, named, stack_named, text, value, write

CANARY = "canary"
BOMB = 50_000_000  # bytes that a few kilobytes unfold into
REFUSED, IGNORED = "refused", "ignored"

SHELL = f"touch {CANARY}"
PYTHON = f"open({CANARY!r}, 'w').close()"


def calls() -> dict[str, bytes]:
    """Programs that would run something, were their names what they say."""
    system = stack_named("os", "system")
    inner = pickle.dumps(0, 2)[:2] + call(named("os", "system"), SHELL) + b"."
    partial = call(named("functools", "partial"), Code(named("os", "system")), SHELL)
    return {
        "os.system": call(named("os", "system"), SHELL),
        "posix.system": call(named("posix", "system"), SHELL),
        "nt.system": call(named("nt", "system"), SHELL),
        "os.popen": call(named("os", "popen"), SHELL),
        "os.execv": call(named("os", "execv"), "/bin/sh", ["sh", "-c", SHELL]),
        "builtins.eval": call(named("builtins", "eval"), PYTHON),
        "builtins.exec": call(named("builtins", "exec"), PYTHON),
        "__builtin__.eval": call(named("__builtin__", "eval"), PYTHON),
        "builtins.open": call(named("builtins", "open"), CANARY, "w"),
        "builtins.getattr": call(named("builtins", "getattr"), Code(named("os", "path")), "os"),
        "builtins.__import__": call(named("builtins", "__import__"), "antigravity"),
        "builtins.map": call(named("builtins", "list"), Code(call(named("builtins", "map"), Code(system), [SHELL]))),
        "subprocess.Popen": call(named("subprocess", "Popen"), SHELL, -1, None, None, None, None, None, True, True),
        "subprocess.check_output": call(named("subprocess", "check_output"), ["touch", CANARY]),
        "importlib": call(named("importlib", "import_module"), "antigravity"),
        "runpy.run_path": call(named("runpy", "run_path"), "canary.py"),
        "runpy._run_code": call(named("runpy", "_run_code"), PYTHON, {}),
        "torch.hub.load": call(named("torch.hub", "load"), ".", "evil", "local"),
        "torch.hub.download": call(named("torch.hub", "download_url_to_file"), "http://127.0.0.1:9/x", CANARY),
        "torch.load": call(named("torch", "load"), "evil.pth"),
        "torch.jit.load": call(named("torch.jit", "load"), "evil.pth"),
        "torch.os": call(stack_named("torch", "os.system"), SHELL),
        "torch.serialization.os": call(stack_named("torch.serialization", "os.system"), SHELL),
        "allowed name walked on": call(stack_named("collections", "OrderedDict.__init__.__globals__"), "x"),
        "torch._utils walked on": call(stack_named("torch._utils", "_rebuild_tensor_v2.__globals__"), "x"),
        "dynamo": call(named("torch._inductor.codecache", "compile_file"), "evil.py"),
        "torch.storage nested": call(named("torch.storage", "_load_from_bytes"), Code(raw(inner))),
        "numpy.load": call(named("numpy", "load"), "evil.npy", None, True),
        "numpy.npyio": call(named("numpy.lib.npyio", "load"), "evil.npy", None, True),
        "numpy.loads": call(named("numpy.core.multiarray", "loads"), "x"),
        "numpy.runstring": call(named("numpy.testing._private.utils", "runstring"), PYTHON, {}),
        "numpy.reconstruct of another": call(
            named("numpy.core.multiarray", "_reconstruct"), Code(named("os", "system")), (0,), "b"
        ),
        "numpy object array": call(named("numpy", "dtype"), "O8"),
        "numpy ctypes": call(named("numpy.ctypeslib", "load_library"), "evil", "."),
        "pickle.loads": call(named("pickle", "loads"), Code(raw(inner))),
        "_pickle.loads": call(named("_pickle", "loads"), Code(raw(inner))),
        "dill": call(named("dill._dill", "_create_code"), 0),
        "cloudpickle": call(named("cloudpickle.cloudpickle", "_builtin_type"), "CodeType"),
        "marshal": call(named("marshal", "loads"), "x"),
        "types.FunctionType": call(named("types", "FunctionType"), Code(call(named("types", "CodeType"), 0)), {}),
        "ctypes.CDLL": call(named("ctypes", "CDLL"), "./evil.so"),
        "pty.spawn": call(named("pty", "spawn"), ["touch", CANARY]),
        "shutil.rmtree": call(named("shutil", "rmtree"), CANARY),
        "pathlib.write_text": call(stack_named("pathlib", "Path.write_text"), "x"),
        "webbrowser": call(named("webbrowser", "open"), "http://127.0.0.1:9"),
        "socket": call(named("socket", "create_connection"), ("127.0.0.1", 9)),
        "codecs.decode": call(named("codecs", "decode"), "x", "zlib"),
        "_codecs.encode by name": call(named("_codecs", "encode"), "x", "evil"),
        "copyreg": call(named("copyreg", "add_extension"), "os", "system", 7),
        "functools.partial": partial,
        "functools.partial called": partial + b")R",
        "functools.reduce": call(named("functools", "reduce"), Code(system), [SHELL]),
        "operator.attrgetter": call(named("operator", "attrgetter"), "system"),
        "operator.methodcaller": call(named("operator", "methodcaller"), "system", SHELL),
        "itertools.starmap": call(named("itertools", "starmap"), Code(system), [(SHELL,)]),
        "timeit": call(named("timeit", "timeit"), PYTHON),
        "code.interact": call(named("code", "interact")),
        "our own loader": call(named("detrex_backbones.checkpoint.read.torch_file", "_within"), "x"),
        "our own configs": call(named("detrex_backbones.config.imports", "execute"), "canary.py"),
        "__reduce__ chain": call(call(named("builtins", "getattr"), Code(named("os", "system")), "__call__"), SHELL),
        "defaultdict's factory": call(named("collections", "defaultdict"), Code(system)) + value("x") + b"N" + b"s",
        "__setstate__": named("os", "_wrap_close") + b")\x81" + value({"_proc": 1}) + b"b",
        "__setstate__ of a function": named("builtins", "eval") + value({"x": PYTHON}) + b"b",
        "__setstate__ planted": named("collections", "OrderedDict")
        + b")R"
        + b"}"
        + value("__setstate__")
        + system
        + b"sb"
        + value(SHELL)
        + b"b",
        "__class__ planted": named("collections", "OrderedDict") + b")R" + value({"__class__": 1}) + b"b",
        "slots": named("collections", "OrderedDict") + b")R" + b"N" + value({"items": 1}) + b"\x86b",
        "INST": b"(" + value(SHELL) + b"ios\nsystem\n",
        "OBJ": b"(" + named("os", "system") + value(SHELL) + b"o",
        "NEWOBJ": named("subprocess", "Popen") + b"(" + value([SHELL]) + b"t\x81",
        "NEWOBJ_EX": named("subprocess", "Popen") + b")" + value({"args": SHELL, "shell": True}) + b"\x92",
        "names from the memo": text("system") + b"q\x64" + b"0" + text("os") + b"h\x64\x93" + value((SHELL,)) + b"R",
    }


def raw(data: bytes) -> bytes:
    """BINBYTES."""
    return b"B" + len(data).to_bytes(4, "little") + data


def tricks() -> dict[str, bytes]:
    """Programs whose instructions alone do harm, or are nonsense."""
    doubled = b")" + b"q\x64" + b"h\x64h\x64\x86q\x64" * 60 + b"0}h\x64Ns"
    copies = b"]q\x64(" + b"N" * 100_000 + b"e0]" + (named("builtins", "list") + b"(h\x64tRa") * 20_000
    storage = call(named("torch.storage", "_load_from_bytes"), Code(raw(pickle.dumps(torch.ones(1), 2))))
    return {
        "memo index": value(0) + b"r\xff\xff\xff\x7f",
        "memo index in text": value(0) + b"p99999999999\n",
        "memo index behind zeros": value(0) + b"p" + b"0" * 50 + b"2147483647\n",
        "memo that isn't there": b"h\x63",
        "negative memo": value(0) + b"p-1\n",
        "no mark": value(0) + b"t",
        "empty stack": b"00000",
        "tuples in tuples as a key": b"}" + b")" + b"\x85" * 500_000 + b"Ns",
        "tuples that hold one another twice": doubled,
        "copies of copies": copies,
        "lists in lists": b"]" * 500_000 + b"a" * 499_999,
        "sets": b"(" + b"\x8f" * 2_000_000 + b"l",
        "lists": b"(" + b"]" * 5_000_000 + b"l",
        "classes": b"(" + b"".join(named("x", str(i)) for i in range(200_000)) + b"l",
        "one class often": b"(" + text("x") + b"q\x64" + b"h\x64h\x64\x93" * 400_000 + b"l",
        "tensors": b"(" + (named("torch.storage", "_load_from_bytes") + b")R") * 310_000 + b"l",
        "arrays": b"(" + call(named("numpy.core.multiarray", "_reconstruct")) * 310_000 + b"l",
        "nested storages": storage,
        "state of a tensor": tensor(4) + b"(" + stored() + value(0) + value((2**40,)) + value((1,)) + b"tb",
        "tensor past its storage": tensor(5),
        "long frame": b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f" + value(0),
        "long bytes": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
        "long text": b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
        "long bytearray": b"\x96\x00\x00\x00\x00\x00\x00\x00\x7f",
        "long number": b"\x8b\xff\xff\xff\x7f",
        "number of many digits": b"I" + b"9" * 1_000_000 + b"\n",
        "persistent id": value(("storage", 1, "../../../etc/passwd", "cpu", 4)) + b"Q",
        "persistent text": b"P../../../etc/passwd\n",
        "persistent number": value(5) + b"Q",
        "persistent module": value(("module", "os", "canary.py", PYTHON)) + b"Q",
        "storage of no bytes": persistent(-4),
        "storage past the end": persistent(2**40),
        "storage of too many": persistent(2**62),
        "storage's entry": persistent(1, "../../data.pkl"),
        "storage's device": persistent(1, "0", "evil:7"),
        "extension": b"\x82\x07",
        "extension with four bytes": b"\x84\xff\xff\xff\x7f",
        "buffer elsewhere": b"\x97",
        "STACK_GLOBAL of numbers": value(1) + value(2) + b"\x93",
        "STACK_GLOBAL of nothing": text("") + text("") + b"\x93)R",
        "STACK_GLOBAL with line ends": text("os\nsystem") + text("x\ny") + b"\x93)R",
        "bytes of a length": call(named("builtins", "bytes"), 10**12),
        "bytearray of a length": call(named("builtins", "bytearray"), 10**12),
        "array of a shape": array((2**40,), b"\0" * 4),
        "array of a negative shape": array((-1, -4), b"\0" * 4),
        "array without bytes": array((2**40,), b""),
        "array of nothing much": array((0, 2**62), b""),
        "dtype of a size": call(named("numpy", "dtype"), "V2000000000"),
        "int of a text": call(named("builtins", "int"), "9" * 1_000_000),
        "not an instruction": b"\xff",
        "recursive": b"}q\x64" + value("model") + b"h\x64s",
    }


def stored() -> bytes:
    """A storage of four numbers, as plain pickle has it."""
    data = io.BytesIO()
    storage = torch.storage.TypedStorage(
        wrap_storage=torch.ones(4).untyped_storage(), dtype=torch.float32, _internal=True
    )
    torch.save(storage, data, _use_new_zipfile_serialization=False)
    return call(named("torch.storage", "_load_from_bytes"), Code(raw(data.getvalue())))


def tensor(count: int) -> bytes:
    """That many numbers of it."""
    return call(named("torch._utils", "_rebuild_tensor_v2"), Code(stored()), 0, (count,), (1,), False, {})


def persistent(count: int, key: str = "0", device: str = "cpu") -> bytes:
    """A tensor of the storage that has this many numbers."""
    saved = b"(" + text("storage") + named("torch", "FloatStorage") + text(key) + text(device) + value(count) + b"tQ"
    return call(named("torch._utils", "_rebuild_tensor_v2"), Code(saved), 0, (1,), (1,), False, {})


def array(shape: tuple[int, ...], data: bytes) -> bytes:
    """An array that says to have this shape."""
    empty = call(named("numpy.core.multiarray", "_reconstruct"), Code(named("numpy", "ndarray")), (0,), "b")
    dtype = call(named("numpy", "dtype"), "f4", False, True)
    return empty + b"(" + value(1) + value(shape) + dtype + value(False) + raw(data) + b"tb"


def _pickles(folder: Path, kinds: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name, program in calls().items():
        for kind in KINDS:
            for beside in (False, True):
                file = f"{name} {'beside' if beside else 'alone'}.{kind}"
                write(program, folder / file, kind, beside)
                yield file, IGNORED if beside else REFUSED
    for name, program in tricks().items():
        for kind in kinds:
            write(program, folder / f"{name}.{kind}", kind, beside=False)
            yield f"{name}.{kind}", REFUSED


def _keys(folder: Path) -> Iterator[tuple[str, str]]:
    count = 10_000_000
    packed = torch.arange(count, dtype=torch.int32)
    body = torch.stack([packed.bitwise_right_shift(shift).to(torch.uint8) for shift in (0, 8, 16, 24)], 1)
    codes = torch.cat([torch.full((count, 1), ord("J")), body, torch.full((count, 1), ord("N"))], 1).to(torch.uint8)
    (folder / "ten million keys.pickle").write_bytes(b"\x80\x02}(" + codes.numpy().tobytes() + b"u.")
    yield "ten million keys.pickle", REFUSED
    entry = '"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = "{" + ",".join(entry % index for index in range(1_500_000)) + "}"
    (folder / "many keys.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())
    yield "many keys.safetensors", REFUSED


def _archives(folder: Path) -> Iterator[tuple[str, str]]:
    good = folder / "good.tmp"
    torch.save(small_state(), good)
    with zipfile.ZipFile(good) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    good.unlink()
    first = next(name for name in records if name.endswith("data/0"))
    program = next(name for name in records if name.endswith("data.pkl"))

    def make(name: str, fill: Callable[[zipfile.ZipFile], object]) -> tuple[str, str]:
        with zipfile.ZipFile(folder / name, "w") as archive:
            fill(archive)
        return name, REFUSED

    def all_but(archive: zipfile.ZipFile, *left_out: str, method: int = zipfile.ZIP_STORED) -> None:
        for name, data in records.items():
            if name not in left_out:
                archive.writestr(name, data, compress_type=method)

    def bomb(archive: zipfile.ZipFile) -> None:
        all_but(archive, first)
        with archive.open(zipfile.ZipInfo(first), "w") as out:
            out._zinfo.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(first + "x", bytes(BOMB), compress_type=zipfile.ZIP_DEFLATED)

    def twice(archive: zipfile.ZipFile) -> None:
        all_but(archive)
        archive.writestr(program, b"\x80\x02" + call(named("os", "system"), SHELL) + b".")

    yield make("bomb.zip", bomb)
    yield make("bomb in the program.zip", lambda archive: (all_but(archive, program), archive.writestr(
        program, b"\x80\x02" + b"(" + b"N" * BOMB + b"l.", compress_type=zipfile.ZIP_DEFLATED)))  # fmt: skip
    yield make("compressed.zip", lambda archive: all_but(archive, method=zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield make("duplicate.zip", twice)
    for place in ("../../evil", "/tmp/evil", "a/../../evil", "..\\evil"):
        name = f"traversal {place.replace('/', '!')}.zip"
        yield make(name, lambda archive, place=place: (all_but(archive), archive.writestr(place, b"x")))
    yield make("no program.zip", lambda archive: all_but(archive, program))
    yield make("no storage.zip", lambda archive: all_but(archive, first))
    yield make("many entries.zip", lambda archive: [archive.writestr(f"a/{i}", b"") for i in range(200_000)])
    whole = bytearray(_stored(records))
    for name, change in {"elsewhere": 42, "overlapping": 42, "larger": 24}.items():
        data = bytearray(whole)
        entries = [at for at in range(len(data)) if data[at : at + 4] == b"PK\x01\x02"]
        if name == "larger":
            struct.pack_into("<II", data, entries[-1] + 20, 2**30, 2**30)
        else:
            other = struct.unpack_from("<I", data, entries[0] + 42)[0] if name == "overlapping" else 7
            struct.pack_into("<I", data, entries[-1] + change, other)
        (folder / f"entry {name}.zip").write_bytes(data)
        yield f"entry {name}.zip", REFUSED
    (folder / "directory elsewhere.zip").write_bytes(whole[:-6] + b"\xff\xff\xff\x7f" + whole[-2:])
    yield "directory elsewhere.zip", REFUSED


def _stored(records: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return out.getvalue()


def _safetensors(folder: Path) -> Iterator[tuple[str, str]]:
    good = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    headers = {
        "overlapping": {"a": good, "b": {**good, "data_offsets": [8, 24]}},
        "negative": {"a": {**good, "data_offsets": [-16, 0]}},
        "backwards": {"a": {**good, "data_offsets": [16, 0]}},
        "past the end": {"a": {**good, "data_offsets": [0, 2**40], "shape": [2**38]}},
        "shape larger than the file": {"a": {**good, "shape": [2**38]}},
        "shape that overflows": {"a": {**good, "shape": [2**33, 2**33]}},
        "negative shape": {"a": {**good, "shape": [-4]}},
        "hole": {"a": good, "b": {**good, "data_offsets": [32, 48]}},
        "dtype": {"a": {**good, "dtype": "OBJECT"}},
        "no mapping": [1, 2],
        "offsets of text": {"a": {**good, "data_offsets": ["0", "16"]}},
        "offsets of floats": {"a": {**good, "data_offsets": [0.0, 16.0]}},
        "no tensors": {},
    }
    for name, header in headers.items():
        _write_header(folder / f"{name}.safetensors", json.dumps(header).encode(), 48)
        yield f"{name}.safetensors", REFUSED
    deep = b'{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"
    double = json.dumps({"a": good}).encode()[:-1] + b"," + json.dumps({"a": good}).encode()[1:]
    for name, header in {
        "deep": deep,
        "name twice": double,
        "not UTF-8": b'{"\xff\xfe":1}',
        "no end": b'{"a":',
    }.items():
        _write_header(folder / f"{name}.safetensors", header, 16)
        yield f"{name}.safetensors", REFUSED
    _write_header(folder / "huge.safetensors", b"{" + b" " * 20_000_000 + b"}", 0)
    yield "huge.safetensors", REFUSED
    (folder / "header longer than the file.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    yield "header longer than the file.safetensors", REFUSED
    save_file(small_state(), folder / "metadata.safetensors", metadata={"__reduce__": PYTHON, "format": "evil"})
    yield "metadata.safetensors", IGNORED


def _write_header(path: Path, header: bytes, size: int) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


TAGS = {
    "object apply": f"a: !!python/object/apply:os.system ['{SHELL}']",
    "object new": f"a: !!python/object/new:subprocess.Popen [['touch', '{CANARY}']]",
    "object": "a: !!python/object:os._wrap_close {x: 1}",
    "name": "a: !!python/name:os.system",
    "module": "a: !!python/module:antigravity",
    "long tag": f'a: !<tag:yaml.org,2002:python/object/apply:builtins.exec> ["{PYTHON}"]',
    "constructor": "!!python/object/new:type {args: ['z', !!python/tuple [], {'extend': !!python/name:exec}]}",
    "own tag": "a: !evil 1",
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "\n".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "recursive": "a: &a [*a]",
    "merge": "a: &a {<<: *a}",
    "deep": "a: " + "[" * 20_000 + "]" * 20_000,
    "deep maps": "a: " + "{b: " * 20_000 + "1" + "}" * 20_000,
    "deep blocks": "- " * 300_000,
    "deep lines": "\n".join(" " * depth + "a:" for depth in range(3000)),
    "very deep": "[" * 3_000_000,
    "key twice": "a: 1\na: 2",
    "no YAML": "a: [1",
    "control characters": "a: \x00\x01",
    "many documents": "a: 1\n---\nb: 2",
}
TARGETS = {
    "os.system": ("os.system", {"command": SHELL}),
    "eval": ("eval", {"source": PYTHON}),
    "exec": ("builtins.exec", {"source": PYTHON}),
    "subprocess": ("subprocess.run", {"args": ["touch", CANARY]}),
    "through torch": ("torch.os.system", {"command": SHELL}),
    "through torch.nn": ("torch.nn.modules.module.torch.os.system", {"command": SHELL}),
    "through a function": ("torch.nn.functional.conv2d.__globals__", {}),
    "through a class": ("torch.nn.Module.__init__.__globals__.get", {}),
    "module": ("torch.nn", {}),
    "import": ("canary_module.run", {}),
    "prefix": ("torch.nnx.evil", {}),
    "partial": ("functools.partial", {}),
    "dots": ("torch.nn...Conv2d", {}),
    "number": (5, {}),
    "nested": ({"_target_": "operator.attrgetter", "attr": "x"}, {}),
}


def _configs(folder: Path) -> Iterator[tuple[str, str]]:
    for name, content in TAGS.items():
        (folder / f"tag {name}.yaml").write_text(content)
        yield f"tag {name}.yaml", REFUSED
    for name, (target, arguments) in TARGETS.items():
        node = {"_target_": target, **arguments}
        (folder / f"target {name}.yaml").write_text(json.dumps({"model": node}))
        (folder / f"inner target {name}.yaml").write_text(
            json.dumps({"model": {"_target_": "torch.nn.Sequential", "arg": [node]}})
        )
        yield f"target {name}.yaml", REFUSED
        yield f"inner target {name}.yaml", REFUSED


def write_corpus(folder: Path, whole: bool) -> dict[str, str]:
    """Write every file, and return what is to become of each: `REFUSED`, or `IGNORED` where good weights are in it.

    Args:
        folder: an empty one.
        whole: with files of more than 20 MB, and each trick of the instructions in every container.
    """
    parts = [_pickles(folder, KINDS if whole else KINDS[:1]), _archives(folder), _safetensors(folder), _configs(folder)]
    if whole:
        parts.append(_keys(folder))
    return {name: fate for part in parts for name, fate in part}
