"""What is measured searches for garbage before each round: through what the tests here make, not all that is there."""

import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def what_is_there_is_no_garbage():
    gc.collect()
    gc.freeze()
