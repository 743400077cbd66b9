"""What holds for every test: small images, so one thread each, as the workers share the cores; and the browser."""

import gc
import os
import shutil
from collections import Counter

import pytest
import torch

# Whoever runs the tests may have set it: messages in pipes are then wrapped.
os.environ.pop("COLUMNS", None)
# More threads would wait for each other longer than they work.
torch.set_num_threads(1)
# Next to nothing that is made while tests are collected is let go again: there is no garbage to look for meanwhile.
gc.disable()


def pytest_collection_finish():
    """The thousands of tests and the imported libraries stay: no search for garbage goes through them again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)  # before pytest picks by marks
def pytest_collection_modifyitems(items):
    """Cases behind the first n of a test marked `few(n)` are slow. What is marked `gpu` skips where there is none."""
    seen = Counter()
    for item in items:
        few = item.get_closest_marker("few")
        if few:
            test = item.nodeid.partition("[")[0]
            seen[test] += 1
            if seen[test] > few.args[0]:
                item.add_marker(pytest.mark.slow)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium, by playwright: the one that the machine has, none is downloaded."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on the PATH")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
