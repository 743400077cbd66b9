"""Which process reads an image: whichever is quicker. The order and the images are the same."""

import pytest
import torch
from torch.utils.data import Dataset

from detrex_backbones.features import reading
from detrex_backbones.features.sources import ImageSource

BATCH = 4
IMAGES = [ImageSource(f"{index}.png", f"{index}.png") for index in range(30)]


class Loader:
    """Reads at once, and notes how many images it was given and by how many processes."""

    given: list[tuple[int, int]]

    def __init__(self, dataset: Dataset, batch_size: None, num_workers: int) -> None:
        self.dataset = dataset
        Loader.given.append((len(dataset), num_workers))

    def __iter__(self):
        return (self.dataset[index] for index in range(len(self.dataset)))


@pytest.fixture
def load(monkeypatch):
    """Images that take `seconds(index)` each to be read, for a network that takes 10 for each batch."""
    clock = [0.0]
    Loader.given = []
    monkeypatch.setattr(reading, "DataLoader", Loader)
    monkeypatch.setattr(reading.os, "cpu_count", lambda: 6)
    monkeypatch.setattr(reading.time, "perf_counter", lambda: clock[0])

    def run(seconds, workers=None, network=10.0, count=30, late=0):
        def read(path, resize):
            index = int(path.removesuffix(".png"))
            clock[0] += seconds(index)
            return torch.tensor(index)

        monkeypatch.setattr(reading, "read_tensor", read)
        found = []
        for image, tensor in reading.load_images(IMAGES[:count], None, workers, BATCH):
            found.append((image.name, int(tensor)))
            if len(found) % BATCH == late:
                clock[0] += network
        assert found == [(f"{index}.png", index) for index in range(count)]
        return Loader.given

    return run


@pytest.mark.parametrize("count", [BATCH + 1, 2 * BATCH, 30])
def test_images_that_take_next_to_no_time_are_read_here(load, count):
    assert load(lambda index: 0.05, count=count) == []


@pytest.mark.parametrize("count", [1, BATCH])
def test_a_batch_is_read_here_however_long_it_takes(load, count):
    assert load(lambda index: 9.0, count=count) == [(count, 0)]


def test_processes_read_where_reading_takes_a_twentieth_of_the_networks_time(load):
    assert load(lambda index: 0.08) == []
    assert load(lambda index: 0.15) == [(30 - 2 * BATCH, 6)]


def test_the_first_image_which_waits_for_imports_does_not_count(load):
    assert load(lambda index: 0.05 if index else 5.0) == []


def test_images_that_get_larger_on_the_way_are_seen(load):
    ((left, _),) = load(lambda index: 0.05 if index < 4 * BATCH else 0.9)
    assert 0 < left < 30 - 4 * BATCH


def test_a_broken_image_which_makes_a_batch_late_changes_nothing(load):
    assert load(lambda index: 0.05, late=1) == []


def test_nothing_is_waited_for_where_reading_is_slow(load):
    assert load(lambda index: 0.7) == [(30 - 3, 6)]


def test_a_network_that_is_still_collecting_its_batch_has_processes(load):
    assert load(lambda index: 0.1, network=0.0) == [(30 - 2 * BATCH, 6)]


@pytest.mark.parametrize(("cpus", "workers"), [(None, 1), (3, 3), (64, 8)])
def test_there_is_a_process_for_each_cpu_and_eight_at_the_most(load, monkeypatch, cpus, workers):
    monkeypatch.setattr(reading.os, "cpu_count", lambda: cpus)
    assert load(lambda index: 2.0) == [(30 - 2, workers)]


@pytest.mark.parametrize("workers", [0, 3])
def test_a_number_of_processes_that_is_given_holds_from_the_first_image(load, workers):
    assert load(lambda index: 0.1, workers) == [(30, workers)]
