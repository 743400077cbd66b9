"""What keeps the tests of the loader light: their files are those of whole networks."""

import shutil

import pytest

from tests.checkpoint.nets import save, weights


@pytest.fixture
def tmp_path(tmp_path):
    """Gone after each test, often before the disk has seen it: pytest would keep the files of three runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """torchvision's ResNet-18."""
    return save(tmp_path_factory.mktemp("torchvision"), weights())
