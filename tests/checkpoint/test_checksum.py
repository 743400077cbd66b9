"""The checksums and the directory of a torch file."""

import struct
import zipfile

import pytest
import torch
from torch.serialization import get_crc32_options, set_crc32_options

from detrex_backbones.checkpoint.checksum import Entry, checked_archive
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.errors import CheckpointFileError
from tests.checkpoint.nets import assert_same_tensors, small_state


def entries_of(path) -> list[Entry]:
    with checked_archive(path) as entries:
        return entries


@pytest.fixture
def path(tmp_path):
    torch.save(small_state(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def assert_as_zipfile_says(path):
    found = sorted((entry.name, entry.size, entry.crc) for entry in entries_of(path))
    with zipfile.ZipFile(path) as archive:
        assert found == sorted((info.filename, info.file_size, info.CRC) for info in archive.infolist())


def test_the_directory_is_read_as_pythons_own_reader_does(path):
    assert_as_zipfile_says(path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for entry in entries_of(path):
            assert data[entry.start : entry.start + entry.size] == archive.read(entry.name)


def test_more_entries_than_16_bits_can_count(tmp_path):
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for index in range(66_000):
            archive.writestr(f"a/{index}", b"x" * (index % 3))
    assert_as_zipfile_says(tmp_path / "many.zip")


def test_sizes_and_places_of_64_bits(tmp_path):
    """A file of 5 GB, all but its ends a hole: what lies behind 4 GB has its place in an extra field."""
    path = tmp_path / "large.zip"
    size = 5 << 30
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/first", b"first")
        archive.fp.seek(size)
        archive.start_dir = size
        archive._didModify = True
        archive.writestr("a/last", b"last")
    assert [(entry.name, entry.size) for entry in entries_of(path)] == [("a/first", 5), ("a/last", 4)]
    assert entries_of(path)[1].start > size
    with path.open("r+b") as file:
        file.seek(entries_of(path)[1].start)
        file.write(b"L")
    with pytest.raises(ValueError, match="checksum of 'a/last'"):
        entries_of(path)


def test_a_flipped_byte_of_a_weight(path):
    entry = next(entry for entry in entries_of(path) if entry.name.endswith("data/0"))
    data = bytearray(path.read_bytes())
    data[entry.start + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointFileError, match=r"the checksum of 'weights/data/0' is not .* Is it whole\?"):
        read_checkpoint(path)


@pytest.fixture
def no_checksums():
    before = get_crc32_options()
    set_crc32_options(False)
    yield
    set_crc32_options(before)


def test_a_file_that_torch_wrote_without_checksums_loads(path, no_checksums):
    torch.save(small_state(), path)
    assert {entry.crc for entry in entries_of(path)} == {0}
    assert_same_tensors(read_checkpoint(path).tensors, small_state())


def test_one_checksum_of_zero_is_a_wrong_one(path):
    data = bytearray(path.read_bytes())
    entry = next(entry for entry in entries_of(path) if entry.name.endswith("data/0"))
    place = data.rindex(struct.pack("<I", entry.crc))
    data[place : place + 4] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(CheckpointFileError, match="the checksum of 'weights/data/0'"):
        read_checkpoint(path)


def test_a_compressed_entry_says_so(path):
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, record in records.items():
            archive.writestr(name, record)
    with pytest.raises(CheckpointFileError, match="compressed or encrypted, which torch never does"):
        read_checkpoint(path)
