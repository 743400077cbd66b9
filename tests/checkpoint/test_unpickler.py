"""Nothing in a file is run, nothing in it reaches the process, and no tensor is larger than what is stored."""

import builtins
import collections
import io
import os
import pickle
import subprocess
import tarfile
from collections import Counter, OrderedDict, defaultdict

import pytest
import torch

from detrex_backbones.checkpoint import unpickler
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.errors import CheckpointFileError
from tests.checkpoint.nets import assert_same_tensors, small_state
from tests.checkpoint.test_reading import TORCH_WRITERS


class Calls:
    """Pickles into a call of `function(*args)`."""

    def __init__(self, function, *args, state=None):
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.call


def attacks(marker):
    """Each would make the file `marker` if what it says were done."""
    code = f"open({str(marker)!r}, 'w').close()"
    legacy = io.BytesIO()
    torch.save({"x": Calls(os.mkdir, str(marker))}, legacy, _use_new_zipfile_serialization=False)
    return {
        "os.system": Calls(os.system, f"touch {marker}"),
        "os.mkdir": Calls(os.mkdir, str(marker)),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "open": Calls(open, str(marker), "w"),
        "subprocess": Calls(subprocess.call, ["touch", str(marker)]),
        "nested pickle": Calls(pickle.loads, pickle.dumps(Calls(os.mkdir, str(marker)))),
        "torch.load": Calls(torch.load, Calls(io.BytesIO, legacy.getvalue())),
        "storage in a storage": Calls(torch.storage._load_from_bytes, legacy.getvalue()),
        "state of a class": Calls(OrderedDict, state={"x": Calls(eval, code)}),
        "factory of a defaultdict": Calls(defaultdict, Calls(os.mkdir, str(marker))),
    }


NAMES = list(attacks("marker"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", TORCH_WRITERS)
def test_calls_beside_the_weights_are_not_made(tmp_path, kind, name):
    path, marker = tmp_path / "weights.pth", tmp_path / "marker"
    TORCH_WRITERS[kind]({"evil": attacks(marker)[name], "model": small_state()}, path)
    tensors = read_checkpoint(path).tensors
    assert not marker.exists()
    assert_same_tensors(tensors, small_state())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", TORCH_WRITERS)
def test_calls_in_place_of_the_weights_are_not_made(tmp_path, kind, name):
    path, marker = tmp_path / "weights.pth", tmp_path / "marker"
    TORCH_WRITERS[kind](attacks(marker)[name], path)
    with pytest.raises(CheckpointFileError):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_calls_are_not_made_in_any_protocol(tmp_path, protocol):
    path, marker = tmp_path / "weights.pkl", tmp_path / "marker"
    path.write_bytes(pickle.dumps({"evil": attacks(marker)["os.mkdir"], "model": small_state()}, protocol=protocol))
    assert_same_tensors(read_checkpoint(path).tensors, small_state())
    assert not marker.exists()


def test_the_attacks_would_work_on_the_ordinary_unpickler(tmp_path):
    """What the tests above prove: without our unpickler the marker is there."""
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(attacks(marker)["os.mkdir"]))
    assert marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        "os system",
        "posix system",
        "builtins eval",
        "builtins getattr",
        "builtins __import__",
        "__builtin__ eval",
        "torch load",
        "torch serialization.os.system",  # a dotted name walks through modules from protocol 4 on
        "torch._utils sys.modules",
        "numpy load",
        "numpy.dtypes ObjectDType",
        "numpy.dtypes __builtins__",
        "collections namedtuple",
        "functools partial",
        "codecs decode",
        "detrex_backbones.checkpoint.unpickler load",
    ],
)
def test_names_that_are_not_on_the_list_become_inert(name):
    module, attribute = name.split()
    found = unpickler.Unpickler(io.BytesIO()).find_class(module, attribute)
    assert issubclass(found, unpickler.Inert)
    assert vars(found(1, 2, key=3)) == {}


def allowed_names():
    return sorted({f"{module} {name}" for module, name in unpickler.ALLOWED} | {"numpy.dtypes Float32DType"})


# Two forms of a state: for the __dict__ of what stands there, and for its attributes.
STATES = {"dict": b"}U\x07plantedK\x01sb", "attributes": b"(N}U\x07plantedK\x01stb"}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", allowed_names())
def test_a_file_cannot_change_what_the_list_names(name, state):
    """BUILD sets attributes of whatever stands on the stack: a class or a function of the process would keep them."""
    module, attribute = name.split()
    data = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + STATES[state] + b"."
    target = unpickler.Unpickler(io.BytesIO()).find_class(module, attribute)
    with pytest.raises(Exception):  # noqa: B017 - which one is the object's own business
        unpickler.loads(data)
    assert not hasattr(target, "planted")
    assert not any(hasattr(value, "planted") for value in (Counter, *vars(unpickler).values()))


def test_a_file_cannot_change_counter_for_the_process():
    data = b"\x80\x02ccollections\nCounter\n(N}U\x08__init__cos\nsystem\nstb."
    before = collections.Counter.__init__
    with pytest.raises(Exception):  # noqa: B017
        unpickler.loads(data)
    assert collections.Counter.__init__ is before
    assert Counter("aab") == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    "value",
    [
        Counter({3: 1, 8: 2}),
        OrderedDict(a=1),
        defaultdict(list, a=[1]),
        {1, 2},
        frozenset({1, 2}),
        complex(1, 2),
        b"",
        b"\x00\xff bytes",
        torch.Size([1, 2]),
        torch.float16,
        torch.device("cpu"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_plain_containers_are_read_as_what_they_are(value, protocol):
    found = unpickler.loads(pickle.dumps(value, protocol=protocol))
    assert type(found) is type(value)
    assert found == value


def test_bytes_of_any_length_cannot_be_asked_for():
    """`bytes(10 ** 12)` would take the machine's memory from a file of forty bytes."""
    for name in ("bytes", "bytearray"):
        found = unpickler.loads(pickle.dumps(Calls(getattr(builtins, name), 10**12)))
        assert isinstance(found, unpickler.Inert)


BOUNDS = {
    "too large": (0, (5,), (1,)),
    "too far": (1, (4,), (1,)),
    "far stride": (0, (2,), (4,)),
    "negative offset": (-1, (2,), (1,)),
    "negative stride": (3, (2,), (-1,)),
    "negative size": (0, (-2,), (1,)),
    "other rank": (0, (2, 2), (1,)),
    "huge": (0, (2**40,), (1,)),
}


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("kind", TORCH_WRITERS)
def test_a_tensor_that_claims_more_than_is_stored_is_refused(tmp_path, kind, name):
    path = tmp_path / "weights.pth"
    storage = torch.storage.TypedStorage(
        wrap_storage=torch.ones(4).untyped_storage(), dtype=torch.float32, _internal=True
    )
    tensor = Calls(torch._utils._rebuild_tensor_v2, storage, *BOUNDS[name], False, OrderedDict())
    TORCH_WRITERS[kind]({"x": tensor}, path)
    with pytest.raises(CheckpointFileError, match=r"are stored|is not possible"):
        read_checkpoint(path)


@pytest.mark.parametrize("claim", [5000, 2**31 - 1])
@pytest.mark.parametrize("kind", ["torch", "torch-legacy"])
def test_a_storage_that_claims_more_than_the_file_has_is_refused(tmp_path, kind, claim):
    path = tmp_path / "weights.pth"
    TORCH_WRITERS[kind]({"x": torch.ones(777)}, path)
    # Twice: how many numbers the storage has, and the tensor.
    wanted, number = b"M\x09\x03", b"J" + claim.to_bytes(4, "little")
    data = path.read_bytes()
    if kind == "torch-legacy":
        path.write_bytes(data.replace(wanted, number))
    else:
        rewrite_zip(path, lambda program: program.replace(wanted, number))
    with pytest.raises(CheckpointFileError):
        read_checkpoint(path)


def rewrite_zip(path, change):
    """Replace the pickle within a torch file."""
    reader = torch._C.PyTorchFileReader(str(path))
    records = {name: reader.get_record(name) for name in reader.get_all_records()}
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, record in records.items():
        if name == "data.pkl":
            record = change(record)
            assert record != records[name]
        if name not in ("version", ".data/serialization_id", "byteorder"):
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source")
@pytest.mark.parametrize("name", ["collections Counter", "torch._utils _rebuild_tensor_v2", "os system"])
def test_the_source_patches_of_old_torch_files_are_not_written(tmp_path, monkeypatch, name):
    """torch writes `NAME.patch` where a legacy file brings other source for a class that has `dump_patches`."""
    monkeypatch.chdir(tmp_path)
    named = b"c" + "\n".join(name.split()).encode() + b"\n"
    changed = named + b"(N}(U\x0cdump_patches\x88U\x08__name__U\x06markerutb0"
    container = b"(U\x06module" + named + b"U\x04file" + b"U\x06sourcetQ0"
    head = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    for program in (changed + container, container):
        path = tmp_path / "weights.pth"
        path.write_bytes(b"".join([*head, b"\x80\x02", program, b"}.", pickle.dumps([], protocol=2)]))
        with pytest.raises(CheckpointFileError):
            read_checkpoint(path)
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pth"]


def test_a_tar_that_looks_like_an_old_torch_file_is_not_unpacked(tmp_path):
    """torch unpacks tars, which may hold devices and links; their name comes first, so it can be any magic number."""
    magic, data = io.BytesIO(), b"weights"
    torch.save({}, magic, _use_new_zipfile_serialization=False)
    path = tmp_path / "weights.pth"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT, encoding="latin1") as archive:
        member = tarfile.TarInfo(magic.getvalue()[:15].decode("latin1"))
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    assert path.read_bytes()[:15] == magic.getvalue()[:15]
    with pytest.raises(CheckpointFileError, match="tar archive"):
        read_checkpoint(path)


def test_inert_objects_swallow_everything():
    inert = unpickler.Inert(1, key=2)
    inert["key"] = 1
    inert.append(1)
    inert.extend([1])
    inert.add(1)
    inert.__setstate__({"a": 1})
    assert inert(1) is inert
    assert vars(inert) == {}
    assert {inert: 1}[inert] == 1


@pytest.mark.parametrize("encoding", ["rot13", "utf-16", "zlib"])
def test_only_pythons_own_way_of_writing_bytes_is_decoded(encoding):
    import codecs

    with pytest.raises(pickle.UnpicklingError, match="encoding"):
        unpickler.loads(pickle.dumps(Calls(codecs.encode, "text", encoding), protocol=2))


def test_a_legacy_storage_larger_than_the_file_is_refused_before_it_is_allocated(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.zeros(70001)}, path, _use_new_zipfile_serialization=False)
    assert read_checkpoint(path).tensors["weight"].shape == (70001,)
    declared = (70001).to_bytes(4, "little"), (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(b"J" + declared[0], b"J" + declared[1]))
    monkeypatch.setattr(torch.UntypedStorage, "__new__", lambda *args, **kwargs: pytest.fail("allocated"))
    with pytest.raises(
        CheckpointFileError, match=r"a storage of 2147483647 numbers is declared in a file of \d+ bytes"
    ):
        read_checkpoint(path)
