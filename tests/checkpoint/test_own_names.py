"""Names that no convention knows, taken by `rename=` or by a convention of the user's own."""

import re
from pathlib import Path

import pytest
import torch
import torchvision

from detrex_backbones import BasicStem, LazyConfig, ResNet, convert_checkpoint, load_checkpoint, make_stage
from detrex_backbones.checkpoint import Convention, Pair, read_checkpoint
from detrex_backbones.checkpoint.files import Checkpoint
from detrex_backbones.checkpoint.names.conventions import sources
from detrex_backbones.checkpoint.names.renaming import rename_checkpoint, rename_keys
from detrex_backbones.checkpoint.options import LoadOptions, option_texts
from detrex_backbones.cli import main
from detrex_backbones.cli.source_names import SOURCE_NAMES
from detrex_backbones.config import LazyCall as L
from detrex_backbones.errors import ArgumentError, CheckpointMatchError, DetrexBackbonesError
from detrex_backbones.zoo import load_options

PAIRS = [
    ("enc.first.{leaf}", "stem.conv1.{leaf}"),
    ("enc.first_bn.{leaf}", "stem.conv1.norm.{leaf}"),
    ("enc.s{s}.b{b}.c{c}.{leaf}", "res{s+1}.{b}.conv{c}.{leaf}"),
    ("enc.s{s}.b{b}.n{c}.{leaf}", "res{s+1}.{b}.conv{c}.norm.{leaf}"),
    ("enc.s{s}.b{b}.d0.{leaf}", "res{s+1}.{b}.shortcut.{leaf}"),
    ("enc.s{s}.b{b}.d1.{leaf}", "res{s+1}.{b}.shortcut.norm.{leaf}"),
]
OWN_FILE = f"""
from detrex_backbones.checkpoint import Convention

CONVENTION = Convention(name="ours", pairs={PAIRS!r}, left_out={{r"^fc\\.": "head"}})
"""


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).eval()


@pytest.fixture
def own_file(network, tmp_path, monkeypatch):
    """torchvision's weights in the names of nobody."""
    monkeypatch.chdir(tmp_path)
    renamed = {}
    for key, value in network.state_dict().items():
        key = re.sub(r"layer(\d)\.(\d)\.conv(\d)", r"s\1.b\2.c\3", key)
        key = re.sub(r"layer(\d)\.(\d)\.bn(\d)", r"s\1.b\2.n\3", key)
        key = re.sub(r"layer(\d)\.(\d)\.downsample\.", r"s\1.b\2.d", key)
        key = re.sub(r"^conv1", "first", re.sub(r"^bn1", "first_bn", key))
        renamed[key if key.startswith("fc.") else f"enc.{key}"] = value
    torch.save(renamed, "own.pth")
    (tmp_path / "names.py").write_text(OWN_FILE, encoding="utf-8")
    (tmp_path / "config.py").write_text(
        "from detrex_backbones import BasicStem, FeatureExtractor, ResNet, make_stage\n"
        "from detrex_backbones.config import LazyCall as L\n"
        "model = L(FeatureExtractor)(\n"
        "    backbone=L(ResNet)(stem=L(BasicStem)(), stages=L(make_stage)(depth=18)),\n"
        "    pixel_mean=[0.0, 0.0, 0.0], pixel_std=[1.0, 1.0, 1.0], input_format='RGB',\n"
        ")\n"
        "train = dict(init_checkpoint='own.pth')\n",
        encoding="utf-8",
    )
    return tmp_path / "own.pth"


def equals_torchvision(model, network):
    images = torch.rand(1, 3, 65, 97)
    with torch.inference_mode():
        wanted = network.layer4(
            network.layer3(network.layer2(network.layer1(network.maxpool(network.bn1(network.conv1(images)).relu()))))
        )
        return torch.allclose(model.eval()(images)["res5"], wanted, rtol=0, atol=1e-5 * wanted.abs().max())


def resnet18():
    return ResNet(BasicStem(norm="BN"), make_stage(18, norm="BN"), out_features=["res5"])


RENAMINGS = [
    (r"^enc\.first\.", "conv1."),
    (r"^enc\.first_bn", "bn1"),
    (r"^enc\.s(\d)\.b(\d)\.c", r"layer\1.\2.conv"),
    (r"^enc\.s(\d)\.b(\d)\.n", r"layer\1.\2.bn"),
    (r"^enc\.s(\d)\.b(\d)\.d", r"layer\1.\2.downsample."),
]


def test_without_them_the_file_is_refused(own_file):
    with pytest.raises(CheckpointMatchError):
        load_checkpoint(resnet18(), own_file)


@pytest.mark.parametrize("kind", [list, dict], ids=["pairs", "table"])
def test_renamed_by_patterns(own_file, network, kind):
    model = resnet18()
    report = load_checkpoint(model, own_file, rename=kind(RENAMINGS))
    assert report.source == "torchvision" and report.coverage == report.file_coverage == 1
    assert equals_torchvision(model, network)
    # The report has the file's names, not those between.
    first = next(entry for entry in report.loaded if entry.model_key == "stem.conv1.weight")
    assert first.checkpoint_key == "enc.first.weight"


def test_renamed_one_by_one_and_globs_are_of_the_files_names(network, tmp_path):
    state = {**network.state_dict(), "layer4.1.gate": torch.ones(3)}
    state["odd"] = state.pop("conv1.weight")
    torch.save(state, tmp_path / "file.pth")
    model = resnet18()
    load_checkpoint(model, tmp_path / "file.pth", rename={"odd": "conv1.weight"}, allow_unused=["layer4.1.gate"])
    assert equals_torchvision(model, network)


def test_a_convention_of_ones_own(own_file, network):
    model = resnet18()
    own = Convention(name="ours", pairs=tuple(PAIRS), left_out={r"^fc\.": "the classifier of ours"})
    report = load_checkpoint(model, own_file, source=own)
    assert report.source == "ours" and report.file_coverage == 1
    assert report.left_over["fc.weight"] == "the classifier of ours"
    assert equals_torchvision(model, network)


def test_its_traits_are_asked(own_file, caplog):
    own = Convention(name="ours", pairs=PAIRS, left_out={r"^fc\.": "head"}, suggests={"dilation_style": "torchvision"})
    model = ResNet(BasicStem(norm="BN"), make_stage(18, norm="BN", res5_dilation=2), out_features=["res5"])
    load_checkpoint(model, own_file, source=own)
    assert "files in ours's names" in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"source": "names.py"},
        {"source": L(Convention)(name="ours", pairs=PAIRS, left_out={r"^fc\.": "head"})},
        {"rename": [list(pair) for pair in RENAMINGS]},
        {"rename": dict(RENAMINGS)},
    ],
    ids=["file", "node", "pairs", "table"],
)
def test_in_a_config(own_file, network, options):
    from detrex_backbones import build_model

    cfg = LazyConfig.load("config.py")
    cfg.train.load_options = options
    model = build_model(cfg)
    assert torch.equal(model.backbone.res5[1].conv2.weight.cpu(), network.layer4[1].conv2.weight)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "words",
    [
        ["--source", "names.py"],
        [word for old, new in RENAMINGS for word in ("--rename", f"{old}={new}")],
        ["train.load_options.rename={" + ", ".join(f"{old!r}: {new!r}" for old, new in RENAMINGS) + "}"],
        ["train.load_options.source=names.py"],
    ],
    ids=["source", "rename", "override", "source override"],
)
def test_on_the_command_line(own_file, capsys, words):
    assert main(["match", "config.py", "own.pth"]) == 1
    capsys.readouterr()
    assert main(["match", "config.py", "own.pth", *words]) == 0
    assert "101 of 101 of model.backbone" in capsys.readouterr().out


def test_converted_there_and_back(own_file, network, capsys):
    assert main(["convert", "own.pth", "plain.pth", "--from", "names.py", "--to", "torchvision"]) == 0
    plain = read_checkpoint("plain.pth").tensors
    assert all(torch.equal(plain[name], value) for name, value in network.state_dict().items() if name in plain)
    assert len(plain) == 120  # all but the classifier's two
    convert_checkpoint("plain.pth", "back.pth", to=Convention(name="ours", pairs=PAIRS))
    assert read_checkpoint("back.pth").tensors.keys() == {key for key in torch.load("own.pth") if "fc." not in key}


@pytest.mark.parametrize(
    ("rename", "words"),
    [
        ({"nowhere": "x"}, ["'nowhere' changes no name", "It has: conv1.weight"]),
        ({"conv1.wieght": "x"}, ["Did you mean 'conv1.weight'"]),
        ({"(": "x"}, ["'(' -> 'x' is no regular expression", "missing )"]),
        ({"conv1": r"\4"}, ["invalid group reference"]),
        ({"layer1.0.conv1.weight": "conv1.weight"}, ["becomes 'conv1.weight', as 'conv1.weight' does"]),
        ({".*": ""}, ["would have no name at all", "allow_unused"]),
        ("conv1", ["no table of names"]),
        ([("a", 1)], ["no table of names"]),
    ],
)
def test_what_is_wrong_with_a_renaming(network, rename, words):
    model = resnet18()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ArgumentError) as error:
        load_checkpoint(model, network.state_dict(), rename=rename)
    assert all(word in str(error.value) for word in words), error.value
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("CONVENTION = 3", ["expected a detrex_backbones.checkpoint.Convention", "it is a int"]),
        ("OTHER = 3", ["has no key 'CONVENTION'"]),
        ("1 / 0", ["names.py:1", "ZeroDivisionError"]),
        ("from detrex_backbones.checkpoint import Convention\nCONVENTION = Convention('a', pairs=['xy'])", ["no pair"]),
    ],
)
def test_what_is_wrong_with_a_file_of_names(own_file, capsys, text, words):
    (own_file.parent / "names.py").write_text(text, encoding="utf-8")
    assert main(["match", "config.py", "own.pth", "--source", "names.py"]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert all(word in told for word in words) and "Traceback" not in told, told
    with pytest.raises(DetrexBackbonesError):
        load_options(LazyConfig.load("config.py"), source="nowhere.py")


def test_a_placeholder_needs_a_number():
    with pytest.raises(ArgumentError, match=r"what is \{k\}\?"):
        Convention(name="ours", pairs=(Pair("a.{leaf}", "b{k}.{leaf}"),))


def test_versions_of_modules_go_with_their_names():
    tensors = {"old.bn.weight": torch.ones(1), "other.weight": torch.ones(1)}
    versions = {"": {"version": 1}, "old": {"version": 3}, "old.bn": {"version": 2}, "other": {"version": 4}}
    renamed, stored = rename_checkpoint(Checkpoint("f", "torch", "", tensors, metadata=versions), [("^old", "new.a")])
    assert renamed.metadata == {
        "": {"version": 1}, "new.a": {"version": 3}, "new.a.bn": {"version": 2}, "other": {"version": 4}
    }  # fmt: skip
    assert stored["new.a.bn.weight"] == "old.bn.weight"


def test_pairs_are_applied_in_their_order():
    assert rename_keys(["a.b"], [("^a", "c"), ("c.b", "d")]) == {"a.b": "d"}


def test_help_texts_know_every_convention():
    assert set(SOURCE_NAMES) == set(sources()) and list(SOURCE_NAMES) == sorted(SOURCE_NAMES)


def test_every_option_has_its_text():
    assert all(option_texts().values())
    assert "rename: keys of the file" in load_checkpoint.__doc__
    with pytest.raises(ArgumentError, match="Did you mean 'prefix'"):
        LoadOptions.of({"prefixx": "a"})


def test_the_docs_have_every_option_as_its_docstring_says_it():
    page = Path(__file__, "../../../docs/how-to/load.md").resolve().read_text(encoding="utf-8")
    for name, text in option_texts().items():
        assert f"| `{name}` | {text} |" in page
