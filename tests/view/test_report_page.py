"""match --html: what the page says, that it needs nothing and trusts nothing, and that it works in a browser."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import torchvision

from detrex_backbones import LoadReport
from detrex_backbones.checkpoint.entry import Status
from detrex_backbones.cli import main
from detrex_backbones.view.report import coverage_tree, report_page, tensor_rows
from tests.checkpoint.reports import left_over, loaded, mismatched

ROOT = Path(__file__).parents[2]
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror=hacked=1>@@DATA@@"


@pytest.fixture
def report():
    return LoadReport(
        path=f"/tmp/{HOSTILE}.pth",
        format="torch",
        source="torchvision",
        entries=[
            loaded("backbone.stem.conv1.weight", "conv1.weight", (64, 3, 7, 7), "stem rule", "float16 -> float32"),
            loaded("backbone.res2.0.conv1.weight", "layer1.0.conv1.weight", (64,), "block rule", "", "summed"),
            mismatched("backbone.res3.0.conv1.weight", "layer2.0.conv1.weight", (128, 64), (128, 32)),
            *left_over({"fc.weight": "head", HOSTILE: "no place"}),
            *left_over({"layer9.weight": "no place"}, Status.OTHER_ARCHITECTURE),
        ],
        missing=["backbone.res2.1.conv1.weight"],
        kept={"backbone.res3.0.norm.num_batches_tracked": "a counter"},
        outside=["head.weight"],
        not_finite={"backbone.stem.conv1.weight": 3},
    )


def scripts(page: str) -> list[tuple[dict, str]]:
    """Every script element as a browser splits them."""
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag == "script":
                found.append((dict(attributes), ""))

        def handle_data(self, text):
            if self.cdata_elem == "script":
                found[-1] = (found[-1][0], found[-1][1] + text)

    Reader().feed(page)
    return found


def test_every_tensor_has_a_row(report):
    rows = tensor_rows(report)
    by_state = {}
    for row in rows:
        by_state.setdefault(row["state"], []).append(row)
    assert {state: len(found) for state, found in by_state.items()} == {
        "mismatched": 1,
        "missing": 1,
        "left over": 3,
        "loaded": 2,
        "kept": 1,
        "outside": 1,
    }
    assert by_state["mismatched"][0]["why"] == "128 x 64 in the model, 128 x 32 in the file"
    assert [row["how"] for row in by_state["loaded"]] == ["stem rule; cast float16 -> float32", "block rule; summed"]
    assert by_state["loaded"][0]["why"] == "3 of its numbers are NaN or infinite"
    assert by_state["left over"][-1]["why"] == "no place; of another architecture"


def test_coverage_by_module(report):
    tree = coverage_tree(report)
    assert sum(tree["counts"].values()) == len([row for row in tensor_rows(report) if row["model"]])
    backbone, head = tree["children"]
    assert (head["name"], head["counts"]) == ("head", {"outside": 1})
    modules = {node["name"]: node["counts"] for node in backbone["children"]}
    assert modules["backbone.res2"] == {"missing": 1, "loaded": 1}
    assert modules["backbone.res3"] == {"mismatched": 1, "kept": 1}


def test_names_are_never_html(report):
    page = report_page(report, refusal=HOSTILE)
    data, code = scripts(page)
    assert data[0] == {"type": "application/json", "id": "data"}
    content = json.loads(data[1])
    assert content["refusal"] == HOSTILE
    assert HOSTILE in [row["file"] for row in content["rows"]]
    assert "innerHTML" not in code[1] and "hacked" not in code[1]
    assert "<img" not in page and "&lt;script&gt;" in page


def test_the_page_is_self_contained():
    page = report_page(LoadReport("weights.pth"))
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|<link|\bsrc=|@import|url\(", page)
    labelled = set(re.findall(r'<label for="(\w+)"', page))
    assert labelled == set(re.findall(r'<input id="(\w+)"', page)) == {"search"}


def test_match_writes_it_where_the_load_is_refused_too(tmp_path, capsys):
    file = tmp_path / "r18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), file)
    fine, refused = tmp_path / "fine.html", tmp_path / "refused.html"
    assert main(["match", "resnet/resnet18.py", str(file), "--html", str(fine)]) == 0
    assert main(["match", "resnet/resnet34.py", str(file), "--html", str(refused)]) == 1
    content = [json.loads(scripts(path.read_text(encoding="utf-8"))[0][1]) for path in (fine, refused)]
    assert content[0]["refusal"] == "" and content[0]["report"]["coverage"] == 1
    assert "res2.2.conv1.weight" in content[1]["refusal"]
    capsys.readouterr()
    assert main(["match", "resnet/resnet18.py", str(file), "--html", str(tmp_path / "no" / "x.html")]) == 1
    assert "--html" in capsys.readouterr().err


def test_the_template_is_in_the_wheel(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    build = [sys.executable, "setup.py", "-q", "bdist_wheel", "-d", str(tmp_path)]
    folders = ["--bdist-dir", str(tmp_path / "bdist")]
    source = tmp_path / "source"
    kept = shutil.ignore_patterns(".git", "build", "dist", "tests", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=kept)
    subprocess.run([*build, *folders], cwd=source, check=True, capture_output=True, timeout=300)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert {"detrex_backbones/view/report.html", "detrex_backbones/zoo/__init__.pyi"} <= {*wheel.namelist()}


@pytest.mark.parametrize("width", [380, 1400])
def test_in_a_browser(report, chromium, tmp_path, width):
    file = tmp_path / "report.html"
    file.write_text(report_page(report), encoding="utf-8")
    page = chromium.new_page(viewport={"width": width, "height": 900})
    trouble, requests = [], []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    count = page.locator("#count")
    assert count.inner_text() == "9 of 9 tensors"
    page.get_by_label("Search names").fill("res2 conv1")
    assert count.inner_text() == "2 of 9 tensors"
    page.keyboard.press("Tab")  # the first filter comes next
    page.keyboard.press("Enter")
    assert page.locator("#rows tr").all_inner_texts()[0].count("layer1.0.conv1.weight") == 1
    assert count.inner_text() == "1 of 9 tensors"
    page.get_by_label("Search names").fill("")
    page.get_by_role("button", name="left over").click()
    assert count.inner_text() == "5 of 9 tensors"
    assert HOSTILE in page.locator("#rows").inner_text()
    page.locator("#chips [aria-pressed=true]").first.click()
    page.get_by_role("button", name="left over").click()
    page.get_by_role("button", name="backbone.res3", exact=True).click()
    assert page.get_by_label("Search names").input_value() == "backbone.res3."
    assert count.inner_text() == "2 of 9 tensors"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("window.hacked") is None
    assert (trouble, requests) == ([], [file.as_uri()])
