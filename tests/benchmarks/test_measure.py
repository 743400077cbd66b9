"""How rows are judged, and that what is measured runs as often and in the order it should; no time is asserted."""

import functools
import itertools
import re
import sys

import pytest
import torch

from benchmarks.measure import Options, Rounds, Row, attempt, compared, in_processes, in_rounds, needs_gpu, peak_memory
from benchmarks.profiles import add_peak, add_profile, allocated


def test_a_ratio_at_most():
    row = compared("g", "w", {"ours": 1.0, "detectron2": 2.0, "timm": 0.5}, against="detectron2", at_most=0.5)
    assert (row.ratio, row.met, row.result) == (0.5, True, "met")
    assert row.target == "at most 0.5 of detectron2"
    assert row.peers == {"detectron2": 2.0, "timm": 0.5}


def test_the_best_of_the_peers_counts():
    row = compared("g", "w", {"ours": 1.0, "detectron2": 2.0, "torchvision": 1.1}, at_least=1.15)
    assert row.ratio == pytest.approx(1.1)
    assert row.result == "missed"
    assert row.target == "at least 1.15 times as fast as detectron2 and torchvision"


def test_a_peer_that_is_not_there_is_left_out():
    numbers = {"ours": 1.0, "detectron2": None, "torchvision": 3.0}
    assert compared("g", "w", numbers, at_least=2).result == "met"
    alone = compared("g", "w", numbers, against="detectron2", at_least=2)
    assert (alone.ratio, alone.met, alone.result) == (None, None, "not installed")


def test_without_a_target_there_is_no_result():
    assert compared("g", "w", {"ours": 1.0, "timm": 2.0}).result == "-"
    assert compared("g", "w", {"ours": 1.0}).ratio is None


def test_what_needs_a_gpu_says_so():
    assert needs_gpu("g", "w", "at most 1.2 of a pinned copy").result == "needs a GPU"


def test_what_raises_becomes_a_row(capsys):
    def broken() -> Row:
        raise ValueError("first line\nno such layer")

    row = attempt("g", "w", broken)
    assert (row.result, row.note) == ("failed", "ValueError: no such layer")
    assert "broken" in capsys.readouterr().err


def test_rounds_begin_with_another_one_each_time():
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = in_rounds(calls, rounds=2, warmup=1)
    assert "".join(order) == "abc" + "bca" + "cab"
    assert {name: len(taken) for name, taken in times.items()} == {"a": 2, "b": 2, "c": 2}


def test_the_mean_of_several_calls():
    order: list[str] = []
    in_rounds({"a": lambda: order.append("a")}, rounds=2, warmup=0, number=5)
    assert len(order) == 10


def test_what_processes_print_is_taken():
    programs = {"ours": "print('some text'); print(3)", "argv": [sys.executable, "-c", "print(5)"]}
    assert in_processes(programs, 1, 0, printed=True) == {"ours": [3.0], "argv": [5.0]}


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match="no such peer"):
        in_processes({"ours": "raise ImportError('no such peer')"}, 1, 0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_peak_memory_counts_what_is_let_go_again_but_not_what_was_there():
    before = "kept = b'1' * (200 << 20)"
    # It is kept for as long as it takes to read it through many times.
    during = "print('x' * 100_000)\nlost = b'1' * (64 << 20)\nfor _ in range(30):\n    lost.count(b'2')\ndel lost"
    assert 60 < peak_memory(before, during) < 100


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_allocated_is_the_most_that_tensors_take_at_once():
    there = torch.zeros(1 << 20)

    def call():
        first = torch.zeros(3 << 18)  # 3 MiB
        del first
        return there, torch.zeros(1 << 18), torch.zeros(1 << 18)

    assert allocated(call) == 3
    assert allocated(lambda: [torch.zeros(1 << 18) for _ in range(4)]) == 4


def test_a_row_that_misses_its_target_says_where_the_time_goes():
    product = torch.randn(300, 300)

    def call():
        for _ in range(20):
            product @ product
        return product.relu()

    def other():
        return product.relu()

    calls = {"ours": call, "slow": call, "fast": other}
    missed = compared("g", "w", {"ours": 2.0, "slow": 1.5, "fast": 1.0, "gone": None}, at_most=1.0, note="because")
    note = add_profile(missed, calls).note
    assert re.fullmatch(
        r"because; by the profiler, ours: matrix products \d+ ms.*; by the profiler, fast: .*activations.*", note
    )
    assert "matrix products" not in note.partition("fast")[2] and "slow" not in note
    met = compared("g", "w", {"ours": 1.0, "fast": 1.0}, at_most=1.0)
    assert add_profile(met, calls).note == ""


def test_a_row_of_memory_that_misses_its_target_says_in_which_operator_the_peak_is():
    value = torch.randn(300, 300)
    calls = {"ours": lambda: value.exp(), "peer": lambda: value.tanh()}
    row = add_peak(compared("g", "w", {"ours": 2.0, "peer": 1.0}, at_most=1.0, unit="MiB"), calls)
    assert re.fullmatch(r"ours: the peak is in aten::exp.*; peer: the peak is in aten::tanh.*", row.note)


def test_peak_memory_of_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match="no such file"):
        peak_memory("", "raise OSError('no such file')")


@pytest.mark.parametrize(
    ("seconds", "asked", "count"),
    [
        ({"ours": [0.5], "peer": [2.0]}, None, 15),
        ({"ours": [1.5], "peer": [2.0]}, None, 5),
        ({"ours": [1.01], "peer": [1.01, 1.01, 1.01, 0.1, 0.1]}, None, 5),  # the median counts, not the mean
        ({"ours": [1.01], "peer": [0.99, 0.99, 9.0, 9.0, 0.99]}, None, 15),
        ({"ours": [0.5], "peer": [2.0]}, 2, 2),
        ({"ours": [1.5], "peer": [2.0]}, 20, 20),
    ],
)
def test_what_takes_under_a_second_is_measured_in_more_rounds(monkeypatch, seconds, asked, count):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    turns = {name: itertools.cycle(taken) for name, taken in seconds.items()}

    def call(name):
        clock[0] += next(turns[name])

    times = in_rounds({name: functools.partial(call, name) for name in turns}, Options(rounds=asked).rounds_or(), 0)
    assert {name: len(taken) for name, taken in times.items()} == dict.fromkeys(seconds, count)


def test_a_group_s_own_number_holds_where_it_is_larger():
    assert Options().rounds_or(30) == Rounds(30, 30)
    assert len(in_rounds({"ours": lambda: None}, Options().rounds_or(16))["ours"]) == 16
