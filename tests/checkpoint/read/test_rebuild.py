"""From records to tensors: no number of the file's is believed before it is compared with what is stored."""

import builtins
import codecs
import io
import os
import pickle
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch

from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.checkpoint.read import load_tensors
from detrex_backbones.checkpoint.read.pickle_data import parse_pickle
from detrex_backbones.checkpoint.read.rebuild import rebuild
from detrex_backbones.checkpoint.read.records import PickleError
from detrex_backbones.errors import CheckpointFileError
from tests.checkpoint.nets import assert_same_tensors, small_state
from tests.checkpoint.test_reading import TORCH_WRITERS
from tests.hostile.assembler import Code, call, named, text, value, write
from tests.hostile.corpus import raw


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
    assert_same_tensors(read_checkpoint(path).tensors, small_state())
    assert not marker.exists()


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
    """What the tests above prove: read by Python, the marker is there."""
    pickle.loads(pickle.dumps(attacks(tmp_path / "marker")["os.mkdir"]))
    assert (tmp_path / "marker").exists()


# -------------------------------------------------------------------------------------------- sizes and storages

VIEWS = {
    "too large": (0, (5,), (1,)),
    "too far": (1, (4,), (1,)),
    "far stride": (0, (2,), (4,)),
    "negative offset": (-1, (2,), (1,)),
    "negative stride": (3, (2,), (-1,)),
    "negative size": (0, (-2,), (1,)),
    "two negative sizes": (0, (-2, -2), (1, 1)),
    "other rank": (0, (2, 2), (1,)),
    "no strides": (0, (4,), ()),
    "huge": (0, (2**40,), (1,)),
    "a product of 2^64": (0, (2**32, 2**32), (1, 1)),
    "a product of 2^64 + 4": (0, (2**33, 2**31), (0, 0)),
    "an offset of 2^63": (2**63, (1,), (1,)),
    "an offset of 2^64": (2**64, (4,), (1,)),
    "a stride of 2^63": (0, (1,), (2**63,)),
    "a size of 2^64 + 4": (0, (2**64 + 4,), (1,)),
    "expanded": (0, (1000,), (0,)),
    "expanded rows": (0, (1000, 4), (0, 1)),
    "empty, but of no size that can be": (0, (0, 2**62, 2**62), (1, 1, 1)),
    "a true size": (0, (True,), (1,)),
    "a float size": (0, (4.0,), (1,)),
    "a size of numpy's": (0, (np.uint8(4),), (1,)),
    "a size of numpy's that would wrap": (0, (np.uint8(250), np.uint8(250)), (np.uint8(1), np.uint8(250))),
    "an offset of numpy's": (np.int64(0), (4,), (1,)),
    "a size of text": (0, ("4",), (1,)),
    "sizes of text": (0, "4", (1,)),
    "no size": (0, None, (1,)),
    "65 dimensions": (0, (1,) * 65, (1,) * 65),
}


def storage_of(count):
    return torch.storage.TypedStorage(
        wrap_storage=torch.ones(count).untyped_storage(), dtype=torch.float32, _internal=True
    )


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("kind", TORCH_WRITERS)
def test_a_view_that_is_not_of_what_is_stored_is_refused(tmp_path, kind, name):
    tensor = Calls(torch._utils._rebuild_tensor_v2, storage_of(4), *VIEWS[name], False, OrderedDict())
    TORCH_WRITERS[kind]({"x": tensor}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointFileError, match=r"can't be read as"):
        read_checkpoint(tmp_path / "weights.pth")


@pytest.mark.parametrize("kind", TORCH_WRITERS)
def test_views_that_are_right(tmp_path, kind):
    stored = torch.arange(12.0)
    views = {"transposed": stored.view(3, 4).t(), "part": stored[3:7], "every second": stored[::2], "whole": stored}
    views |= {"scalar": stored[5], "empty": stored[:0], "64 dimensions": stored[:1].view((1,) * 64)}
    TORCH_WRITERS[kind](views, tmp_path / "weights.pth")
    found = read_checkpoint(tmp_path / "weights.pth").tensors
    assert_same_tensors(found, views)
    assert [value.stride() for value in found.values()] == [value.stride() for value in views.values()]
    if kind != "pickle":  # where each tensor has a file of its own within the file
        assert len({value.untyped_storage().data_ptr() for name, value in found.items() if name != "empty"}) == 1


def test_an_expanded_tensor_says_how_to_mend_it(tmp_path):
    torch.save({"x": torch.ones(1).expand(5)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointFileError, match=r"repeats the 1 numbers that are stored.*tensor\.contiguous\(\)"):
        read_checkpoint(tmp_path / "weights.pth")


STORED = 4


def stored_within() -> bytes:
    """Instructions that make a storage of four ones, as a plain pickle has it."""
    data = io.BytesIO()
    torch.save(storage_of(STORED), data, _use_new_zipfile_serialization=False)
    return call(named("torch.storage", "_load_from_bytes"), Code(raw(data.getvalue())))


def a_tensor(storage: bytes = b"") -> bytes:
    storage = storage or stored_within()
    return call(named("torch._utils", "_rebuild_tensor_v2"), Code(storage), 0, (STORED,), (1,), False, {})


def a_dtype() -> bytes:
    return call(named("numpy", "dtype"), "f4", False, True)


def an_array(dtype: bytes, shape=(1,), data=b"\0" * 4) -> bytes:
    empty = call(named("numpy.core.multiarray", "_reconstruct"), Code(named("numpy", "ndarray")), (0,), "b")
    return empty + b"(" + value(1) + value(shape) + dtype + value(False) + raw(data) + b"tb"


BUILDS = {
    "a tensor": a_tensor() + b"(" + stored_within() + value(0) + value((2**20,)) + value((1,)) + b"tb",
    "a tensor's attributes": a_tensor() + value({"data": 1}) + b"b",
    "a storage": a_tensor(stored_within() + value({"_size": 1000}) + b"b"),
    "a parameter": call(named("torch._utils", "_rebuild_parameter"), Code(a_tensor()), True, {})
    + value({"a": 1}) + b"b",
    "a shape": call(named("torch._utils", "_rebuild_tensor_v2"), Code(stored_within()), 0,
                    Code(call(named("torch", "Size"), (4,)) + value({"a": 1}) + b"b"), (1,), False, {}),
    "a device": call(named("torch", "device"), "cpu") + value({"a": 1}) + b"b",
    "a dtype of torch": named("torch", "float32") + value({"itemsize": 400}) + b"b",
    "a list": value([1]) + value({"a": 1}) + b"b",
    "an appended tensor": a_tensor() + value(1) + b"a",
    "a tensor with keys": a_tensor() + value("a") + value(1) + b"s",
}  # fmt: skip


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("kind", TORCH_WRITERS)
def test_what_is_made_cannot_be_changed_afterwards(tmp_path, kind, name):
    write(BUILDS[name], tmp_path / "weights", kind, beside=True)
    with pytest.raises(CheckpointFileError):
        read_checkpoint(tmp_path / "weights")


@pytest.mark.parametrize(
    "state",
    [(3, "<", None, None, None, 400, 4, 0), (3, ">", None, None, None, -1, -1, 0), (3, "<", ("a",), {"a": 1}, None, 8)],
)
def test_a_dtype_that_is_changed_after_its_check_is_as_wide_as_its_name(tmp_path, state):
    """BUILD on numpy's dtype could make an item of it any size; here it only says the order of the bytes."""
    array = an_array(a_dtype() + value(state) + b"b", (2,), np.array([1, 2], "<f4").tobytes())
    write(array, tmp_path / "weights.pkl", "pickle", beside=True)
    found = read_checkpoint(tmp_path / "weights.pkl")
    assert_same_tensors(found.tensors, small_state())
    evil = found.extra["evil"]
    if isinstance(evil, torch.Tensor):
        assert evil.shape == (2,) and evil.untyped_storage().nbytes() == 8
    else:
        assert "array of structures" in repr(evil)


@pytest.mark.parametrize("shape", [(301,), (299,), (2**40, 2**40), (-1, 10), (True,), (4.0,), (1,) * 65])
def test_an_array_whose_shape_is_not_that_of_its_bytes(tmp_path, shape):
    write(an_array(a_dtype(), shape, bytes(1200)), tmp_path / "weights.pkl", "pickle", beside=True)
    with pytest.raises(CheckpointFileError, match="can't be read as pickle"):
        read_checkpoint(tmp_path / "weights.pkl")


@pytest.mark.parametrize("name", ["bytes", "bytearray"])
def test_bytes_of_any_length_cannot_be_asked_for(tmp_path, name):
    """`bytes(10 ** 12)` would take the machine's memory from a file of forty bytes."""
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"evil": Calls(getattr(builtins, name), 10**12), "model": small_state()}))
    try:
        assert not isinstance(read_checkpoint(path).extra["evil"], bytes)
    except CheckpointFileError as error:
        assert "can't be read as pickle" in str(error)


@pytest.mark.parametrize("encoding", ["rot13", "utf-16", "zlib"])
def test_only_pythons_own_way_of_writing_bytes_is_decoded(encoding):
    data = pickle.dumps(Calls(codecs.encode, "text", encoding), protocol=2)
    with pytest.raises(PickleError, match="encoding"):
        rebuild(parse_pickle(data)[0], lambda saved: pytest.fail("no storage"))


def declared(count: int, key: str = "0", kind: bytes = named("torch", "FloatStorage"), part: bytes = b"N") -> bytes:
    """A persistent id: a storage that is somewhere else in the file."""
    return b"(" + text("storage") + kind + text(key) + text("cpu") + value(count) + part + b"tQ"


def legacy(content: bytes, keys: list, storages: bytes = b"") -> bytes:
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    parts = [pickle.dumps(part, protocol=2) for part in head]
    return b"".join([*parts, b"\x80\x02" + content + b".", pickle.dumps(keys, protocol=2), storages])


FOUR = (4).to_bytes(8, "little") + bytes(16)
LEGACY = {
    "never filled": ([], b""),
    "never filled, but named": (["0"], b""),
    "filled in part": (["0"], FOUR[:-1]),
    "filled with another number": (["0"], (5).to_bytes(8, "little") + bytes(20)),
    "filled with fewer": (["0"], (3).to_bytes(8, "little") + bytes(12)),
    "filled twice": (["0", "0"], FOUR * 2),
    "filled under another key": (["1"], FOUR),
    "beside one that nobody asked for": (["0", "1"], FOUR * 2),
    "keys that are numbers": ([0], FOUR),
    "keys that can't be hashed": ([[]], FOUR),
    "keys of equal hashes": ([(1 << 61) - 1, 2 * ((1 << 61) - 1)], FOUR),
    "no keys": ("0", FOUR),
}


@pytest.mark.parametrize("name", LEGACY)
@pytest.mark.parametrize("within", [False, True])
def test_a_legacy_storage_is_there_once_and_whole(tmp_path, name, within):
    keys, storages = LEGACY[name]
    path = tmp_path / "weights.pth"
    if within:
        inside = legacy(declared(4), keys, storages)
        tensor = a_tensor(call(named("torch.storage", "_load_from_bytes"), Code(raw(inside))))
        path.write_bytes(b"\x80\x02}" + text("x") + tensor + b"s.")
    else:
        path.write_bytes(legacy(b"}" + text("x") + a_tensor(declared(4)) + b"s", keys, storages))
    with pytest.raises(CheckpointFileError, match="can't be read as"):
        read_checkpoint(path)


def test_a_legacy_file_that_is_right(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(legacy(b"}" + text("x") + a_tensor(declared(4)) + b"s", ["0"], FOUR))
    assert read_checkpoint(path).tensors["x"].tolist() == [0.0] * 4


@pytest.mark.parametrize("part", [("v", 3, 2), ("v", -1, 2), ("v", 0, 2**62), ("v", 0), 5, "abc", ("v", True, 1)])
def test_a_part_of_a_legacy_storage_that_is_not_in_it(tmp_path, part):
    path = tmp_path / "weights.pth"
    for whole in (declared(4, part=value(part)), a_tensor(declared(4, part=value(part)))):
        path.write_bytes(legacy(b"}" + text("x") + whole + b"s", ["0"], FOUR))
        with pytest.raises(CheckpointFileError, match="can't be read as torch-legacy"):
            read_checkpoint(path)


IDS = {
    "described in two ways": declared(4) + declared(3),
    "of an unknown kind": declared(4, kind=named("os", "system")) + b"N",
    "of a kind that is a call": declared(4, kind=named("torch", "FloatStorage") + b")R") + b"N",
    "of no kind": declared(4, kind=value(5)) + b"N",
    "negative": declared(-4) + b"N",
    "too long": declared(2**62) + b"N",
    "of 2^63": declared(2**63) + b"N",
    "of a true count": b"(" + text("storage") + named("torch", "FloatStorage") + text("0") + text("cpu") + b"\x88tQN",
    "no storage": value(("module", "os", "a", "b", "c")) + b"QN",
    "a text": b"P../../etc/passwd\nN",
    "a number": value(5) + b"QN",
    "short": value(("storage", 1)) + b"QN",
    "a key that is a number": b"(" + text("storage") + named("torch", "FloatStorage") + value(0) + text("cpu")
    + value(4) + b"tQN",
    "a key that leads elsewhere": declared(1, "../data.pkl") + b"N",
}  # fmt: skip


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("kind", ["torch", "torch-legacy"])
def test_storages_that_are_described_wrongly(tmp_path, kind, name):
    write(b"(" + IDS[name] + b"t", tmp_path / "weights.pth", kind, beside=True)
    with pytest.raises(CheckpointFileError, match="can't be read as torch"):
        read_checkpoint(tmp_path / "weights.pth")


@pytest.mark.parametrize("bits", [{"neg": True}, {"conj": True}])
@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "float8_e5m2"])
def test_a_bit_that_the_dtype_cannot_have(tmp_path, dtype, bits):
    tensor = torch.ones(4).to(getattr(torch, dtype))
    function, arguments = tensor.__reduce_ex__(2)
    wrong = Calls(function, *arguments, bits)
    torch.save({"x": wrong}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointFileError, match="is marked as negated or conjugated"):
        read_checkpoint(tmp_path / "weights.pth")


def test_many_views_of_one_storage_take_its_memory_once(tmp_path):
    """Each negated or swapped view was a copy of the whole storage."""
    stored = torch.view_as_complex(torch.arange(2000.0).view(1000, 2)).conj().imag
    assert stored.is_neg()
    torch.save({str(index): stored for index in range(500)}, tmp_path / "weights.pth")
    found = read_checkpoint(tmp_path / "weights.pth").tensors
    assert len({value.untyped_storage().data_ptr() for value in found.values()}) == 1
    assert torch.equal(found["7"], stored.resolve_neg())


def test_many_storages_within_a_pickle_that_are_one(monkeypatch):
    """A file within the file is read once, however many tensors say that it is theirs."""
    inside = io.BytesIO()
    torch.save(storage_of(4), inside, _use_new_zipfile_serialization=False)
    load = named("torch.storage", "_load_from_bytes")
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + load
        + b"h\x05\x85R"
        + value(0)
        + value((4,))
        + value((1,))
        + b"\x89}tR"
    )
    data = b"\x80\x02](" + raw(inside.getvalue()) + b"q\x05" + tensor * 50 + b"e."
    seen = []

    def storage(saved):
        from detrex_backbones.checkpoint.read.torch_file import _within

        seen.append(len(saved))
        return _within(saved if isinstance(saved, memoryview) else memoryview(saved))

    found = rebuild(parse_pickle(data)[0], storage)
    assert len(seen) == 1 and len(found) == 51
    assert torch.equal(load_tensors(found[1:])[49], torch.ones(4))


def test_arrays_that_share_their_bytes_share_them(tmp_path):
    data = np.arange(1000, dtype="<f4").tobytes()
    shared = raw(data) + b"q\x64" + b"0"
    body = an_array(a_dtype(), (1000,), data).replace(raw(data), b"h\x64")
    content = b"\x80\x02" + shared + b"}(" + b"".join(text(str(index)) + body for index in range(200)) + b"u."
    (tmp_path / "weights.pkl").write_bytes(content)
    found = read_checkpoint(tmp_path / "weights.pkl").tensors
    assert len({value.untyped_storage().data_ptr() for value in found.values()}) == 1
    assert found["7"].tolist() == list(range(1000))


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 1, 0), (0, 2, 1), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("protocol", [4, 5])
def test_arrays_whose_axes_are_turned(tmp_path, axes, protocol):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(axes)
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"turned": array}, protocol))
    assert np.array_equal(read_checkpoint(path).tensors["turned"].numpy(), array)


def test_axes_that_are_no_order_are_refused(tmp_path):
    path = tmp_path / "weights.pkl"
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(1, 0, 2)
    data = pickle.dumps({"turned": array}, 5)
    if b"K\x01K\x00K\x02\x87" not in data:
        pytest.skip("this numpy writes no order of axes")
    path.write_bytes(data.replace(b"K\x01K\x00K\x02\x87", b"K\x01K\x01K\x02\x87"))
    with pytest.raises(CheckpointFileError, match="axes in the order"):
        read_checkpoint(path)
