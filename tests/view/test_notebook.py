"""What IPython and Jupyter show, and the notebook of the examples."""

import json
from pathlib import Path

import pytest

from detrex_backbones import BasicStem, ResNet, ShapeSpec, get_config, instantiate, load_checkpoint, make_stage
from detrex_backbones.config import LazyCall
from detrex_backbones.view.notebook import complete_lazy_call, config_text, shapes_html, shapes_text

NOTEBOOK = Path(__file__).parents[2] / "examples" / "backbones.ipynb"
NAMES = {"L": LazyCall, "ResNet": ResNet, "make_stage": make_stage, "BasicStem": BasicStem, "print": print}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("L(ResNet)(free", ["freeze_at="]),
        ("x = L(ResNet)(freeze_at=1, stem=L(BasicStem)(norm='BN'), stag", ["stages="]),
        ("L(ResNet)(\n    stem=L(BasicStem)(in_", ["in_channels="]),
        ("L(make_stage)(depth=18, dep", []),  # it is given already
        ("L(ResNet)([free", []),
        ("print(free", []),
        ("L(ResNet).free", []),
        ("L(nothing)(free", []),
        ("L(ResNet.nothing)(free", []),
    ],
)
def test_arguments_of_a_lazy_call(line, wanted):
    assert complete_lazy_call(line, NAMES) == wanted


def test_all_of_them_and_nothing_is_run():
    assert complete_lazy_call("L(ResNet)(", NAMES)[:2] == ["stem=", "stages="]
    # What would have to be called to be known is not called.
    assert complete_lazy_call("L(boom())(", {**NAMES, "boom": lambda: pytest.fail("was called")}) == []


def test_a_lazy_call_has_the_signature_and_text_of_its_target():
    import inspect

    assert inspect.signature(LazyCall(ResNet)) == inspect.signature(ResNet)
    assert LazyCall(ResNet).__doc__ == ResNet.__doc__


def test_configs_as_python():
    cfg = get_config("resnet/resnet18.py")
    assert config_text(cfg).startswith("cfg.model = detrex_backbones.FeatureExtractor(\n    backbone=")
    assert config_text(cfg.model.backbone).startswith("detrex_backbones.ResNet(\n    freeze_at=1,\n")
    assert config_text(cfg.model.pixel_mean) == "[123.675, 116.28, 103.53]"
    assert max(map(len, config_text(cfg).splitlines())) <= 80


def test_shapes_as_a_table():
    shapes = {"res5": ShapeSpec(channels=512, stride=32), "<b>": ShapeSpec(channels=3, height=7)}
    assert shapes_text(shapes).splitlines()[1].split() == ["res5", "512", "32"]
    assert "<th>&lt;b&gt;</th><td>3</td><td>7</td><td></td><td></td>" in shapes_html(shapes)


def test_a_report_is_its_summary(tmp_path):
    import torch

    model = instantiate(get_config("resnet/resnet18.py").model)
    weights = {**model.state_dict(), "<script>.weight": torch.ones(1)}
    torch.save(weights, tmp_path / "file.pth")
    shown = load_checkpoint(model, tmp_path / "file.pth", allow_unused=["*"])._repr_html_()
    assert "of the model" in shown and "1 without a place" in shown
    assert "&lt;script&gt;.weight: " in shown and "<script>" not in shown


def test_in_ipython():
    pytest.importorskip("IPython", reason="IPython isn't installed")
    from IPython.core.completer import provisionalcompleter
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.extension_manager.load_extension("detrex_backbones")
    shell.push({**NAMES, "cfg": get_config("resnet/resnet18.py")})
    shown, _ = shell.display_formatter.format(shell.user_ns["cfg"].model.backbone)
    assert shown["text/plain"].startswith("detrex_backbones.ResNet(\n") and shown["text/html"].startswith("<pre>detrex")
    shapes = {"res5": ShapeSpec(channels=512, stride=32)}
    shown, _ = shell.display_formatter.format(shapes)
    assert shown["text/plain"] == shapes_text(shapes) and shown["text/html"] == shapes_html(shapes)
    assert shell.display_formatter.format({"a": 1})[0] == {"text/plain": "{'a': 1}"}
    with provisionalcompleter():
        found = {each.text for each in shell.Completer.completions("L(ResNet)(free", 14)}
    assert found == {"freeze_at="}


@pytest.mark.slow
def test_the_notebook_prints_what_it_shows(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="nbclient isn't installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat isn't installed")
    pytest.importorskip("ipykernel", reason="ipykernel isn't installed")
    notebook = nbformat.read(NOTEBOOK, 4)
    resources = {"metadata": {"path": str(tmp_path)}}
    done = nbclient.NotebookClient(nbformat.from_dict(notebook), timeout=300, resources=resources).execute()
    assert _shown(done) == _shown(json.loads(NOTEBOOK.read_text(encoding="utf-8")))


def _shown(notebook):
    """What the cells print and give; a figure by its kinds alone, whose pixels differ between fonts."""
    shown = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":  # what other packages warn of
                continue
            data = output.get("data", {})
            lines = output.get("text") or data.get("text/plain", "")
            text = "".join(lines)
            shown.append("a figure" if "image/png" in data else text.strip())
    return shown
