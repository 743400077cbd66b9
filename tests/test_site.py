"""The built documentation: nothing of it comes from elsewhere, and every page works in a browser.

mkdocs build --strict --site-dir site && DETREX_BACKBONES_SITE=site pytest tests/test_site.py
"""

import functools
import http.server
import os
import re
import threading
from pathlib import Path

import pytest

SITE = os.environ.get("DETREX_BACKBONES_SITE", "")
pytestmark = pytest.mark.skipif(not SITE, reason="DETREX_BACKBONES_SITE names no built documentation")

# What a browser fetches by itself; a link that a reader may click isn't among them.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|audio|video|embed)\b[^>]*?\bsrc=["']?(?:https?:)?//"""
    r"""|<link\b[^>]*?\bhref=["']?(?:https?:)?//|url\(["']?(?:https?:)?//|@import\s+["'](?:https?:)?//"""
)


def pages() -> list[str]:
    """Paths of the pages, from the root of the site."""
    return sorted(path.parent.relative_to(SITE).as_posix() for path in Path(SITE).rglob("index.html"))


def test_nothing_is_fetched_from_elsewhere():
    files = [path for suffix in ("html", "css") for path in Path(SITE).rglob(f"*.{suffix}")]
    found = {str(path): match[0] for path in files if (match := FETCHED.search(path.read_text(encoding="utf-8")))}
    assert len(files) > 30 and found == {}


@pytest.fixture(scope="module")
def address():
    """Of a server of the site: a page from the disk has no search."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def opened(chromium, address):
    """Open a page at a width; afterwards no error may be in the console, and no other server may have been asked."""
    trouble, asked = [], set()

    def open_page(path, width):
        page = chromium.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: asked.add(request.url))
        page.goto(f"{address}/{path}/", wait_until="load")
        return page

    yield open_page
    assert trouble == []
    assert [url for url in asked if not url.startswith(address)] == []


# Every page on a telephone, which has least place; some on a desk.
@pytest.mark.parametrize(("width", "step"), [(400, 1), (1400, 7)])
def test_every_page_can_be_read(opened, address, width, step):
    page, wide = opened(".", width), []
    for path in pages()[::step]:
        page.goto(f"{address}/{path}/", wait_until="load")
        assert page.locator("h1").count() == 1, path
        assert page.locator("img").evaluate_all("all => all.every(image => image.naturalWidth > 0)"), path
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wide.append(path)
    assert wide == []


def test_the_search_finds_a_class(opened):
    page = opened(".", 1400)
    page.get_by_role("textbox", name="Search").fill("SimpleFeaturePyramid")
    found = page.locator(".md-search-result__item", has_text="SimpleFeaturePyramid")
    found.first.wait_for()
    assert any("reference/backbones/" in str(link.get_attribute("href")) for link in found.locator("a").all())


def test_the_reference_has_parameters_and_errors(opened):
    text = opened("reference/backbones", 1400).locator("article").inner_text()
    assert "out_features" in text and "ArgumentError" in text and "stride_in_1x1" in text
