"""Ray Data, where it is installed: two workers, one of which is killed, write each image once."""

import os
import signal

import numpy as np
import pytest

from detrex_backbones.features import ImageFeatures

ray = pytest.importorskip("ray", reason="ray is not installed")


class Killed(ImageFeatures):
    """Dies at its second batch, once among all workers."""

    def __init__(self, flag, **arguments):
        super().__init__(**arguments)
        self.flag = flag
        self.batches = 0

    def __call__(self, batch):
        self.batches += 1
        if self.batches == 2 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


@pytest.mark.slow
def test_a_worker_that_dies_loses_nothing(photos, config, reference, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000)
    try:
        flag = tmp_path / "killed"
        images = ray.data.read_binary_files(str(photos), include_paths=True, file_extensions=["png"])
        images.map_batches(
            Killed,
            fn_constructor_kwargs={"flag": flag, "config": config, "maps": ["res5"]},
            batch_size=2,
            num_cpus=0.5,
            compute=ray.data.ActorPoolStrategy(size=2),
        ).write_parquet(str(tmp_path / "out"))
    finally:
        ray.shutdown()
    table = parquet.read_table(tmp_path / "out")
    assert flag.exists()
    vectors = dict(zip(table["path"].to_pylist(), table["res5"].to_pylist(), strict=True))
    assert len(vectors) == table.num_rows == len(reference)
    for path, vector in vectors.items():
        name = os.path.relpath(path, photos)
        wanted = reference[name]["res5"].mean(dim=(1, 2))
        assert np.allclose(np.array(vector).ravel(), wanted, rtol=1e-4, atol=1e-5)
