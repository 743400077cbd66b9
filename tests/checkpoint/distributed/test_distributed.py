"""Loads by several processes: what they get, how they refuse, and that nobody waits for the dead."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch.distributed.tensor", reason="this torch has no FSDP2")

from detrex_backbones import load_checkpoint
from detrex_backbones.checkpoint.place.distributed import load_checkpoint_distributed
from tests.checkpoint.distributed import together
from tests.checkpoint.distributed.launch import launch
from tests.checkpoint.distributed.together import FILE, Small, state, whole
from tests.old_libraries import skip_before

if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch is built without gloo", allow_module_level=True)


def with_file(folder):
    """A folder in which only rank 0's has the file."""
    (folder / "rank0").mkdir()
    torch.save(state(), folder / "rank0" / FILE)
    (folder / "rank0" / "damaged.pth").write_bytes((folder / "rank0" / FILE).read_bytes()[:1000])
    return folder


NO_TRAINING = "what fully_shard shards can't be trained on a CPU"


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The bytes that a load by one process gives."""
    model = Small()
    path = with_file(tmp_path_factory.mktemp("one")) / "rank0" / FILE
    load_checkpoint(model, path)
    return whole(model)


@pytest.fixture(scope="module")
def all_of_two(tmp_path_factory):
    """What every check of two ranks found; they are started once, since that takes the time."""
    return launch(together.all_of_two, 2, with_file(tmp_path_factory.mktemp("two")))


@pytest.fixture(scope="module")
def loads(all_of_two):
    return [rank["loads"] for rank in all_of_two]


@pytest.fixture(scope="module")
def refusals(all_of_two):
    return [rank["refusals"] for rank in all_of_two]


@pytest.fixture(scope="module")
def folders(all_of_two):
    return [rank["folders"] for rank in all_of_two]


@pytest.mark.slow
def test_the_file_is_seen_by_the_first_alone_and_opened_by_no_other(loads):
    assert [rank["seen"] for rank in loads] == [True, False]
    assert loads[0]["opened"] > 0
    assert loads[1]["opened"] == 0


@pytest.mark.parametrize("kind", ["plain", "fsdp", "dtensor", "fsdp alone", "dtensor alone", "pair"])
def test_all_get_what_one_process_gets(loads, expected, kind):
    for rank in loads:
        assert rank[kind] == expected


def test_one_tensor_is_held_at_a_time(loads):
    assert loads[1]["held"] == 1


def test_all_get_the_report(loads):
    assert loads[0]["report"] == loads[1]["report"]
    assert loads[0]["report"]["coverage"] == 1


REFUSED = {
    "path": "RankError: the processes disagree about the load: 'path' is weights.pth on rank 0; other-weights.pth",
    "options": "RankError: the processes disagree about the load: 'options' is ",
    "unknown option": "'scoop' is no option of a load",
    "no file": "does not exist",
    "damaged": "can't be read as torch",
    "unfit": "is not for this model",
    "shape": "the processes disagree about the model: 'linear.weight' is (7, 5) torch.float32 on rank 0; (7, 6)",
    "keys": "the processes disagree about the model: 'extra' is nothing on rank 0; (1,) torch.float32 on rank 1",
    "traits": "the processes disagree about what the model does: 'pixel_mean' is [1.0] on rank 0; [2.0] on rank 1",
    "meta": "on the meta device",
}


@pytest.mark.parametrize("case", REFUSED)
def test_all_refuse_what_one_must(refusals, case):
    texts = [rank[case][0] for rank in refusals]
    assert all(REFUSED[case] in text for text in texts), texts
    assert all(rank[case][1] for rank in refusals)
    types = {text.partition(":")[0] for text in texts}
    assert len(types) == 1


def test_the_ranks_work_on_after_refusals(refusals):
    assert all(rank["afterwards"] == ("no error", True) for rank in refusals)


@pytest.mark.parametrize("kind", ["resumed", "unsharded", "otherwise sharded", "read by torch", "written by torch"])
def test_folders_hold_what_was_saved(folders, kind):
    skip_before("torch", "2.7", NO_TRAINING)
    for rank in folders:
        assert rank[kind] == rank["saved"]
    assert folders[0]["format"] == "dcp"


@pytest.mark.parametrize("run", ["", "one "])
def test_a_resumed_run_goes_on_identically(folders, run):
    if not run:
        skip_before("torch", "2.7", NO_TRAINING)
        assert folders[0]["milestones"] == {2: 1, 4: 2}
    for rank in folders:
        assert rank[f"{run}rest"] == {"iteration": 3}
        assert rank[f"{run}went on after"] == rank[f"{run}went on"]


def test_the_folder_of_the_run_is_seen_by_the_first_alone(folders):
    assert [rank["one seen"] for rank in folders] == [True, False]


def test_an_optimizer_that_does_not_fit_on_one_rank_is_refused_on_all(folders):
    for text, unchanged in (rank["one unfit"] for rank in folders):
        assert "its 'optimizer' doesn't fit the one of this run" in text
        assert unchanged


def test_a_folder_that_can_not_be_written_is_the_same_error_on_all(folders):
    for text, _ in (rank["one full"] for rank in folders):
        assert text.startswith("CheckpointFileError: ")
        assert "can't be written" in text


@pytest.mark.slow
def test_a_death_is_an_error_on_the_others(tmp_path):
    results = launch(together.dies, 3, with_file(tmp_path), 2, 3, together.KILL, 60.0, victim=2)
    assert results[2] == "died"
    for text, seconds in results[:2]:
        assert text.startswith("RankError: rank ")
        assert "lost another of the 3 processes" in text
        assert seconds < 60, "the timeout, instead of the closed connection, has ended it"


def test_without_a_group_it_is_an_ordinary_load(tmp_path, expected):
    model = Small()
    load_checkpoint_distributed(model, with_file(tmp_path) / "rank0" / FILE)
    assert whole(model) == expected
