"""One strict reading of a zip archive: what two readers could understand in two ways is refused."""

import io
import struct
import warnings
import zipfile

import pytest
import torch
from torch import serialization

from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.checkpoint.read.source import Source, open_source
from detrex_backbones.checkpoint.read.zip_archive import ArchiveError, ZipArchive
from detrex_backbones.errors import CheckpointFileError
from tests.checkpoint.nets import assert_same_tensors, save, small_state

END, LOCATOR, END_64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"


def written(entries, method=zipfile.ZIP_STORED) -> bytearray:
    """An archive as Python writes it."""
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, data in entries:
            archive.writestr(name, data)
    return bytearray(out.getvalue())


def entries_of(data):
    return ZipArchive(Source.of_memory(bytes(data))).entries


def refused(data, message):
    with pytest.raises(ArchiveError, match=message):
        entries_of(data)


TWO = [("a/x", b"first"), ("a/y", b"second")]


def directory_of(data, number=0) -> int:
    """Where an entry's place in the directory is."""
    return [at for at in range(len(data)) if data[at : at + 4] == b"PK\x01\x02"][number]


def wide(data, **changes) -> bytearray:
    """The same archive with the ends of 64 bits, of which some fields say something else."""
    *_, count, size, start, _ = struct.unpack("<4s4H2IH", data[-22:])
    fields = {"length": 44, "disk": 0, "first": 0, "here": count, "count": count, "size": size, "start": start}
    place = {"disk": 0, "at": len(data) - 22, "disks": 1}
    narrow = {"here": 0xFFFF, "count": 0xFFFF, "size": 0xFFFFFFFF, "start": 0xFFFFFFFF}
    for name, value in changes.items():
        where, _, field = name.partition("_")
        {"wide": fields, "place": place, "narrow": narrow}[where][field] = value
    end_64 = struct.pack("<4sQ2H2I4Q", END_64, fields["length"], 45, 45, *list(fields.values())[1:])
    locator = struct.pack("<4sIQI", LOCATOR, *place.values())
    return data[:-22] + end_64 + locator + struct.pack("<4s4H2IH", END, 0, 0, *narrow.values(), 0)


def test_what_torch_and_python_write_is_read_as_python_reads_it(tmp_path):
    files = [save(tmp_path, small_state()).read_bytes(), written(TWO), wide(written(TWO))]
    for data in files:
        found = entries_of(data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert sorted(found) == sorted(archive.namelist())
            for name, piece in found.items():
                assert data[piece.start : piece.start + piece.size] == archive.read(name)


def test_more_entries_than_16_bits_can_count():
    names = [f"a/{index}" for index in range(66_000)]
    found = entries_of(written((name, b"x") for name in names))
    assert sorted(found) == sorted(names)


def test_sizes_and_places_of_64_bits(tmp_path):
    """A file of 5 GB, all but its ends a hole: what lies behind 4 GB has its place in an extra field."""
    path, size = tmp_path / "large.zip", 5 << 30
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/first", b"first")
        archive.fp.seek(size)
        archive.start_dir = size
        archive._didModify = True
        archive.writestr("a/last", b"last")
    with open_source(path) as source:
        archive = ZipArchive(source)
        assert archive.entries["a/last"].start > size
        assert (archive.read("a/first"), archive.read("a/last")) == (b"first", b"last")


@pytest.mark.parametrize(
    "change",
    [
        {"wide_length": 45},
        {"wide_disk": 1},
        {"wide_first": 1},
        {"wide_here": 1},
        {"wide_count": 1, "wide_here": 1, "narrow_count": 2, "narrow_here": 2},
        {"wide_start": 0, "narrow_start": 80},
        {"wide_size": 20, "narrow_size": 100},
        {"place_disk": 1},
        {"place_at": 0},
        {"place_disks": 2},
        {"narrow_count": 1, "narrow_here": 1},
        {"narrow_size": 1},
        {"narrow_start": 1},
    ],
    ids=str,
)
def test_two_ends_that_disagree(change):
    refused(wide(written(TWO), **change), "disagree")


def test_a_second_directory_that_the_end_of_64_bits_points_at():
    """The narrow end says one directory, the wide one another: readers choose differently."""
    good, evil = written(TWO), written([("a/x", b"FIRST"), ("a/y", b"SECOND")])
    at = directory_of(evil)
    body = evil[:at] + good
    *_, size, start, _ = struct.unpack("<4s4H2IH", good[-22:])
    moved = bytearray(body[:-22])
    first = len(evil[:at]) + start
    for number in range(2):  # the good directory's places move with it
        place = first + [0, size // 2][number] + 42
        struct.pack_into("<I", moved, place, struct.unpack_from("<I", moved, place)[0] + at)
    end_64 = struct.pack("<4sQ2H2I4Q", END_64, 44, 45, 45, 0, 0, 2, 2, len(evil) - at - 22, at)
    locator = struct.pack("<4sIQI", LOCATOR, 0, len(moved), 1)
    end = struct.pack("<4s4H2IH", END, 0, 0, 2, 2, size, first, 0)
    assert set(entries_of(moved + end)) == {"a/x", "a/y"}
    refused(moved + end_64 + locator + end, "disagree")


def test_an_end_without_its_wide_part():
    data = written(TWO)
    struct.pack_into("<I", data, len(data) - 6, 0xFFFFFFFF)
    refused(data, "end of its directory is damaged")


@pytest.mark.parametrize("at", [-18, -16, -14, -10, -6])
def test_an_end_that_says_something_else(at):
    data = written(TWO)
    data[at % len(data)] += 1
    refused(data, "several files|not where the end|says that it has|directory is damaged")


def test_something_behind_the_end():
    data = written(TWO)
    refused(data + b"more", "not at its end")
    data[-2] = 4
    refused(data + b"more", "not at its end")
    refused(data, "not at its end")  # a comment that is announced, and isn't there


def test_something_between_the_directory_and_its_end():
    data = written(TWO)
    refused(data[:-22] + b"more" + data[-22:], "not where the end of it says")


@pytest.mark.parametrize("size", [256, 511, 3000])
def test_names_that_readers_in_c_would_cut(size):
    refused(written([*TWO, ("a/" + "x" * (size - 2), b"")]), "which no checkpoint has")
    assert len(entries_of(written([("a/" + "x" * 253, b"")]))) == 1


@pytest.mark.parametrize(
    "name", ["../a", "/a", "a//b", "a/./b", "a/../b", "a\\b", "a/", "a/\n", "a/\x1b[m", "a/\u202e"]
)
def test_names_that_no_checkpoint_has(name):
    refused(written([*TWO, (name, b"")]), "which no checkpoint has")


def test_a_name_that_is_no_text():
    data = written([("a/\u00fc", b"")])
    refused(data.replace("\u00fc".encode(), b"\xff\xfe"), "which is no text")


@pytest.mark.parametrize(("one", "other"), [("a/x", "a/x"), ("a/x", "A/X"), ("a/\u00df", "a/SS"), ("a/x", "a/X")])
def test_names_that_are_equal_or_equal_but_for_case(one, other):
    refused(written([(one, b"1"), (other, b"2")]), "two entries are called")


def test_compressed_and_encrypted_entries_say_so():
    refused(written(TWO, zipfile.ZIP_DEFLATED), "is compressed, which entries of checkpoints never are")
    for flag, what in ((0x01, "encrypted"), (0x20, "compressed"), (0x40, "compressed")):
        data = written(TWO)
        data[directory_of(data) + 8] |= flag
        refused(data, f"is {what}")
    data = written(TWO)
    data[directory_of(data) + 20] += 1  # what it takes when it is packed
    refused(data, "is compressed")


def test_entries_that_overlap():
    data = written(TWO)
    data[directory_of(data, 1) + 42] = 0
    refused(data, "overlaps")
    data = written([("a/x", b"y" * 60), ("a/y", b"")])
    inner = written([("a/y", b"")])
    at = data.index(b"y" * 60)
    data[at : at + 33] = inner[:33]  # an entry within the bytes of another
    data[directory_of(data, 1) + 42] = at
    refused(data, "overlaps")


def test_an_entry_that_reaches_into_the_directory():
    data = written([("a/x", b"1234")])
    for at in (18, 22, directory_of(data) + 20, directory_of(data) + 24):
        struct.pack_into("<I", data, at, 50)
    refused(data, "reaches past its place")


LOCAL = {"magic": 0, "flags": 6, "method": 8, "crc": 14, "packed": 18, "size": 22, "name": 30, "name's length": 26}


@pytest.mark.parametrize("field", LOCAL)
def test_an_entrys_own_header_that_contradicts_the_directory(field):
    data = written(TWO)
    data[LOCAL[field]] ^= 1
    refused(data, "disagree about it|not where the directory says")


def test_sizes_that_follow_the_bytes_are_known_from_the_directory():
    data = written(TWO)
    data[6] |= 8
    data[directory_of(data) + 8] |= 8
    struct.pack_into("<3I", data, 14, 0, 0, 0)
    assert entries_of(data)["a/x"].size == 5
    struct.pack_into("<3I", data, 14, 0, 0, 1)
    refused(data, "disagree about it")


def test_a_size_that_is_given_twice():
    data = written([("a/x", b"first")])
    at = directory_of(data)
    extra = struct.pack("<HH2Q", 1, 16, 5, 5) + struct.pack("<HH2Q", 1, 16, 4, 4)
    struct.pack_into("<2I", data, at + 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", data, at + 30, len(extra))
    directory = data[at:-22] + extra
    end = struct.pack("<4s4H2IH", END, 0, 0, 1, 1, len(directory), at, 0)
    refused(data[:at] + directory + end, "its size twice")


@pytest.mark.parametrize("part", range(1, 20))
def test_archives_that_are_cut(part):
    data = written(TWO)
    refused(data[: len(data) * part // 20], "not at its end|points outside")


# ---------------------------------------------------------------------------------------------- torch's archives


def rewritten(path, change):
    """Write a torch file again from its entries, after a change of the list of them."""
    with zipfile.ZipFile(path) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    path.write_bytes(written(change(entries)))
    return path


@pytest.mark.parametrize("name", ["constants.pkl", "CONSTANTS.PKL", "Constants.Pkl", "code/constants.pkl"])
def test_a_program_of_torchscript_in_any_case(tmp_path, name):
    path = rewritten(save(tmp_path, small_state()), lambda entries: [*entries, (f"changed/{name}", b"")])
    with pytest.raises(CheckpointFileError, match="TorchScript program"):
        read_checkpoint(path)


def test_a_program_behind_a_name_that_torch_would_cut(tmp_path):
    name = "changed/" + "x" * 503 + "/constants.pkl"
    path = rewritten(save(tmp_path, small_state()), lambda entries: [*entries, (name, b"")])
    with pytest.raises(CheckpointFileError, match="TorchScript program"):
        read_checkpoint(path)


@pytest.mark.parametrize("second", ["other/data.pkl", "changed/deep/data.pkl"])
def test_two_programs(tmp_path, second):
    path = rewritten(save(tmp_path, small_state()), lambda entries: [*entries, (second, b"\x80\x02}.")])
    with pytest.raises(CheckpointFileError, match=r"has 2 entries called data\.pkl"):
        read_checkpoint(path)


@pytest.mark.parametrize("size", [-4, -1, 1, 4, 64])
def test_a_storage_that_is_longer_or_shorter_than_its_entry(tmp_path, size):
    def change(entries):
        return [
            (name, data + b"x" * size if size > 0 else data[:size]) if name.endswith("data/0") else (name, data)
            for name, data in entries
        ]

    path = rewritten(save(tmp_path, {"x": torch.ones(4), "y": torch.ones(20)}), change)
    with pytest.raises(
        CheckpointFileError, match=f"the storage '0' of 4 numbers of torch.float32 has {16 + size} byte"
    ):
        read_checkpoint(path)


def test_a_storage_that_is_not_there(tmp_path):
    path = rewritten(save(tmp_path, {"x": torch.ones(4)}), lambda entries: [e for e in entries if "data/0" not in e[0]])
    with pytest.raises(CheckpointFileError, match="the storage '0' is not in the file"):
        read_checkpoint(path)


def test_a_byte_order_that_is_none(tmp_path):
    def change(entries):
        return [(name, b"middle" if name.endswith("byteorder") else data) for name, data in entries]

    with pytest.raises(CheckpointFileError, match="its byte order is"):
        read_checkpoint(rewritten(save(tmp_path, small_state()), change))


def test_a_flipped_byte_of_a_weight(tmp_path):
    path = save(tmp_path, small_state())
    with open_source(path) as source:
        start = ZipArchive(source).entries["changed/data/0"].start
    data = bytearray(path.read_bytes())
    data[start + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointFileError, match=r"the checksum of 'changed/data/0' is wrong.* Is it whole\?"):
        read_checkpoint(path)


@pytest.fixture
def no_checksums():
    if not hasattr(serialization, "set_crc32_options"):
        pytest.skip("this torch always writes checksums")
    before = serialization.get_crc32_options()
    serialization.set_crc32_options(False)
    yield
    serialization.set_crc32_options(before)


def test_a_file_that_torch_wrote_without_checksums_loads(tmp_path, no_checksums):
    path = save(tmp_path, small_state())
    assert {piece.crc for piece in entries_of(path.read_bytes()).values()} == {None}
    assert_same_tensors(read_checkpoint(path).tensors, small_state())


def test_one_checksum_of_zero_is_a_wrong_one(tmp_path):
    path = save(tmp_path, small_state())
    data = bytearray(path.read_bytes())
    crc = struct.pack("<I", entries_of(data)["changed/data/0"].crc)
    assert data.count(crc) >= 2
    path.write_bytes(data.replace(crc, bytes(4)))
    with pytest.raises(CheckpointFileError, match="the checksum of 'changed/data/0'"):
        read_checkpoint(path)
