"""What torch reads with `weights_only`, we read: every dtype, layout and container, value by value."""

import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.errors import CheckpointFileError
from tests.checkpoint.nets import raw
from tests.checkpoint.read.test_zip_archive import rewritten
from tests.checkpoint.test_reading import write_legacy, write_zip

DTYPES = sorted(
    {value for value in vars(torch).values() if isinstance(value, torch.dtype)} - {torch.quint4x2, torch.quint2x4},
    key=str,
)
CONTAINERS = {"zip": write_zip, "legacy": write_legacy}


def numbers(dtype):
    """Twelve numbers of a dtype, as bits that are right for it."""
    data = torch.arange(12 * dtype.itemsize, dtype=torch.uint8)
    return (data % 2 if dtype == torch.bool else data).view(dtype)


LAYOUTS = {
    "contiguous": lambda flat: flat.view(3, 4),
    "transposed": lambda flat: flat.view(3, 4).t(),
    "part": lambda flat: flat[2:9],
    "every second": lambda flat: flat[::2],
    "scalar": lambda flat: flat[5],
    "empty": lambda flat: flat[:0].view(0, 3),
    "channels last": lambda flat: flat.view(1, 2, 3, 2).permute(0, 3, 1, 2),
    "parameter": lambda flat: nn.Parameter(flat.view(3, 4), requires_grad=False),
}


def assert_same(found, expected):
    """The same structure with the same types, and tensors of the same bytes."""
    if isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert raw(found.resolve_conj().resolve_neg()) == raw(expected.resolve_conj().resolve_neg())
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list | tuple):
        assert type(found) is type(expected) and len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert type(found) is type(expected) and found == expected


def assert_as_torch_reads_it(path, content=None):
    checkpoint = read_checkpoint(path)
    theirs = torch.load(path, weights_only=True) if content is None else content
    assert not checkpoint.unread
    ours = {**checkpoint.extra, checkpoint.container: dict(checkpoint.tensors)}
    ours = ours if checkpoint.container else dict(checkpoint.tensors)
    assert_same({str(key): ours[str(key)] for key in theirs}, {str(key): value for key, value in theirs.items()})


def can_be_saved(dtype):
    try:
        torch.zeros(1, dtype=dtype).clone()
    except (RuntimeError, TypeError):
        return False
    return "q" not in str(dtype).removeprefix("torch.") and not str(dtype).startswith("torch.bits")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_in_every_layout(tmp_path, dtype, container):
    path = tmp_path / "weights.pth"
    try:
        content = {name: layout(numbers(dtype)) for name, layout in LAYOUTS.items()}
        CONTAINERS[container](content, path)
        theirs = torch.load(path, weights_only=True)
        raws = {name: raw(value) for name, value in theirs.items()}
    except (RuntimeError, TypeError, NotImplementedError, KeyError, pickle.UnpicklingError, AttributeError) as error:
        pytest.skip(f"torch doesn't save or read it: {str(error)[:60]}")
    assert set(raws) == set(content)
    assert_as_torch_reads_it(path)


def test_most_dtypes_are_tried():
    tried = {str(dtype) for dtype in DTYPES if can_be_saved(dtype)}
    assert {f"torch.{name}" for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")} <= tried
    assert {f"torch.{name}" for name in ("uint16", "uint32", "uint64", "complex32", "bfloat16", "bool")} <= tried


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("container", [True, False])
def test_every_protocol(tmp_path, protocol, container):
    path = tmp_path / "weights.pth"
    content = {
        "x": torch.arange(5.0),
        "long": torch.arange(3000),
        "model": [1, ("a", None)],
        "y": nn.Parameter(torch.ones(2)),
    }
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=container)
    assert_as_torch_reads_it(path, {"x": content["x"], "long": content["long"], "y": content["y"].detach()})


VIEWS = {
    "imaginary part of a conjugate": lambda z: z.conj().imag,
    "conjugate": lambda z: z.conj(),
    "conjugate transposed": lambda z: z.view(3, 2).conj().t(),
    "negated": lambda z: torch._neg_view(z),
    "negated and conjugated": lambda z: torch._neg_view(z.conj()),
    "part of a conjugate": lambda z: z.conj()[1:4],
    "real part": lambda z: z.real,
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("dtype", [torch.complex32, torch.complex64, torch.complex128], ids=str)
def test_lazy_bits_of_views(tmp_path, name, dtype):
    """A view of `z.conj().imag` has a bit that negates it: without it every sign is wrong."""
    z = torch.view_as_complex(torch.arange(1.0, 13.0).view(6, 2)).to(dtype)
    view = VIEWS[name](z)
    torch.save({"x": view}, tmp_path / "weights.pth")
    found = read_checkpoint(tmp_path / "weights.pth").tensors["x"]
    theirs = torch.load(tmp_path / "weights.pth", weights_only=True)["x"]
    assert not found.is_neg() and not found.is_conj()
    # torch can't conjugate complex32: what it would be, by another dtype.
    expected = VIEWS[name](z.to(torch.complex128)).resolve_conj().resolve_neg().to(theirs.dtype)
    assert (found.shape, found.dtype) == (theirs.shape, theirs.dtype)
    assert raw(found) == raw(expected)
    assert dtype == torch.complex32 or raw(theirs.resolve_conj().resolve_neg()) == raw(expected)


def test_tensors_with_attributes_and_buffers(tmp_path):
    marked = torch.arange(3.0)
    marked.author, marked.places = "somebody", [1, 2]
    parameter = nn.Parameter(torch.ones(2))
    parameter.note = "kept"
    content = {"marked": marked, "parameter": parameter, "buffer": nn.Buffer(torch.ones(4)), "plain": torch.ones(1)}
    for write in CONTAINERS.values():
        write(content, tmp_path / "weights.pth")
        found = read_checkpoint(tmp_path / "weights.pth")
        assert not found.unread
        assert_same(dict(found.tensors), {name: value.detach() for name, value in content.items()})


OTHERS = {
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
    "quantised by channel": lambda: torch.quantize_per_channel(
        torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.quint8
    ),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "sparse rows": lambda: torch.eye(3).to_sparse_csr(),
    "on the meta device": lambda: torch.ones(3, device="meta"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OTHERS)
def test_what_has_no_plain_values_is_named(tmp_path, name):
    torch.save({"odd": OTHERS[name](), "x": torch.ones(2)}, tmp_path / "weights.pth")
    found = read_checkpoint(tmp_path / "weights.pth")
    assert list(found.tensors) == ["x"] and name.split()[0] in found.unread["odd"].replace("of the meta", "on the meta")


def test_tensors_that_share_memory_share_it(tmp_path):
    whole = torch.arange(10.0)
    for write in CONTAINERS.values():
        write({"whole": whole, "part": whole[2:4], "again": whole}, tmp_path / "weights.pth")
        found = read_checkpoint(tmp_path / "weights.pth").tensors
        found["whole"][2] = 77
        assert found["part"][0] == 77 and found["again"][2] == 77


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.complex64, torch.uint8, torch.bool])
def test_a_file_of_a_machine_that_writes_the_highest_byte_first(tmp_path, dtype):
    values = numbers(dtype)
    path = tmp_path / "weights.pth"
    torch.save({"x": values, "y": values[3:5]}, path)
    width = dtype.itemsize // (2 if dtype.is_complex else 1)

    def swapped(entries):
        big = [(name, np.frombuffer(data, f"V{width}").tobytes()) for name, data in entries if name.endswith("data/0")]
        data = np.frombuffer(big[0][1], np.uint8).reshape(-1, width)[:, ::-1].tobytes()
        changed = {"data/0": data, "byteorder": b"big"}
        return [(name, changed.get(name.partition("/")[2], old)) for name, old in entries]

    rewritten(path, swapped)
    found = read_checkpoint(path).tensors
    assert_same(dict(found), {"x": values, "y": values[3:5]})
    assert_same(dict(found), torch.load(path, weights_only=True))


def trained(optimizer, scheduler):
    model = nn.Linear(3, 2)
    made = optimizer(model.parameters())
    plan = scheduler(made)
    for _ in range(3):
        model(torch.ones(1, 3)).sum().backward()
        made.step()
        plan.step()
    return {"model": model.state_dict(), "optimizer": made.state_dict(), "scheduler": plan.state_dict(), "epoch": 3}


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "AdamW": lambda p: torch.optim.AdamW(p, amsgrad=True),
    "LBFGS": lambda p: torch.optim.Adagrad(p),
    "RMSprop": lambda p: torch.optim.RMSprop(p, centered=True),
}
SCHEDULERS = {
    "MultiStep": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [1, 2]),
    "Cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
    "Step": lambda o: torch.optim.lr_scheduler.StepLR(o, 2),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_whole_states_of_training(tmp_path, name, container):
    for scheduler in SCHEDULERS.values():
        content = trained(OPTIMIZERS[name], scheduler)
        CONTAINERS[container](content, tmp_path / "training.pth")
        assert_as_torch_reads_it(tmp_path / "training.pth", content)


def test_files_that_torch_wrote_aligned_otherwise(tmp_path):
    for alignment in (1, 8, 64, 4096):
        reason = "this torch aligns storages in one way"
        config = pytest.importorskip("torch.utils.serialization", reason=reason).config
        with config.patch({"save.storage_alignment": alignment}):
            torch.save(
                {"x": torch.arange(5), "odd": torch.ones(3, dtype=torch.uint8), "y": torch.ones(7)}, tmp_path / "w"
            )
        assert_as_torch_reads_it(tmp_path / "w")


def test_storages_that_stand_alone(tmp_path):
    content = {"typed": torch.arange(4.0).storage(), "untyped": torch.arange(4.0).untyped_storage(), "x": torch.ones(1)}
    torch.save(content, tmp_path / "weights.pth")
    found = read_checkpoint(tmp_path / "weights.pth").tensors
    assert (
        found["typed"].tolist() == [0, 1, 2, 3]
        and found["untyped"].dtype == torch.uint8
        and len(found["untyped"]) == 16
    )


def test_a_whole_file_of_programs_is_refused_with_the_line_that_mends_it(tmp_path):
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), path)
    with pytest.raises(CheckpointFileError, match=r"program of torch\.export.*torch\.export\.load"):
        read_checkpoint(path)


def test_two_keys_that_are_written_alike(tmp_path):
    torch.save({"1": torch.ones(1), "a": torch.zeros(2)}, tmp_path / "weights.pth")
    assert set(read_checkpoint(tmp_path / "weights.pth").tensors) == {"1", "a"}


def test_zip64_of_torchs_own(tmp_path):
    """torch writes the ends of 64 bits into every file."""
    torch.save({"x": torch.ones(1)}, tmp_path / "weights.pth")
    data = (tmp_path / "weights.pth").read_bytes()
    assert b"PK\x06\x06" in data and b"PK\x06\x07" in data
    with zipfile.ZipFile(tmp_path / "weights.pth") as archive:
        assert all(struct.calcsize("<I") for _ in archive.namelist())
