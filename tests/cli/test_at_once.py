"""What answers at once: commands that print lists import no network, and those that build none compile nothing."""

import subprocess
import sys

import pytest
import timm
import torch
import torchvision

from detrex_backbones import TorchvisionBackbone
from detrex_backbones.backbones.cost import measure
from detrex_backbones.backbones.timm import build
from detrex_backbones.checkpoint.fetch.catalog import library_tables, timm_weights, torchvision_weights
from detrex_backbones.checkpoint.fetch.catalog.library_tables import SHIPPED, installed_version, read_table
from detrex_backbones.checkpoint.fetch.catalog.weight import Weight
from detrex_backbones.config import LazyCall as L
from detrex_backbones.zoo import build_on_meta, get_config, list_backbones, list_configs
from detrex_backbones.zoo.backbone_names import find_backbone
from detrex_backbones.zoo.ready_configs import preprocessing_of

LISTS = [
    ["--help"],
    ["--version"],
    ["list"],
    ["list", "timm/convnext*"],
    ["weights"],
    ["weights", "resnet50"],
    ["weights", "timm://swin*", "--json"],
]


def modules_after(*runs):
    """What a fresh Python has imported after these commands, each of which must succeed."""
    code = (
        "import contextlib, io, sys\n"
        "from detrex_backbones.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        f"    statuses = [main(argv) for argv in {[[str(word) for word in run] for run in runs]}]\n"
        "print(*statuses, len(out.getvalue()) > 100, *sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *statuses, printed = done.stdout.split()[: len(runs) + 1]
    assert (set(statuses), printed) == ({"0"}, "True"), done.stderr
    return set(done.stdout.split())


@pytest.mark.slow
def test_lists_import_no_network_library():
    assert not modules_after(*LISTS) & {"torch", "timm", "torchvision"}


def test_show_and_match_import_neither_torchs_compiler_nor_sympy(tmp_path):
    checkpoint = tmp_path / "r18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), checkpoint)
    loaded = modules_after(["show", "resnet/resnet18"], ["match", "resnet/resnet18", checkpoint])
    assert "torch" in loaded and not loaded & {"torch._dynamo", "sympy"}


@pytest.mark.parametrize(("library", "module"), [("timm", timm_weights), ("torchvision", torchvision_weights)])
def test_the_tables_are_what_the_libraries_say(library, module):
    file = SHIPPED / f"{library}-{installed_version(library)}.json.gz"
    if not file.is_file():
        pytest.skip(f"the package has the tables of another {library}")
    kept, asked = read_table(file), module.ask()
    assert len(asked.weights) > 100
    assert kept == asked


def test_the_table_of_another_version_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(library_tables, "SHIPPED", tmp_path / "none")
    monkeypatch.setenv("DETREX_BACKBONES_CACHE", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "timm")
    table = library_tables.LibraryTable(("a",), {"a.b": Weight("timm://a.b", top1=70.0, overrides=("x=1",))})
    asked = []

    def ask():
        asked.append(1)
        return table

    for _ in range(2):
        library_tables._kept.cache_clear()
        assert library_tables.library_table("timm", ask) == table
    assert len(asked) == 1
    (file,) = (tmp_path / "cache" / "tables").iterdir()
    file.write_bytes(file.read_bytes()[:40])  # damaged: asked again
    library_tables._kept.cache_clear()
    assert library_tables.library_table("timm", ask) == table
    assert len(asked) == 2
    library_tables._kept.cache_clear()


def test_what_a_program_registers_with_timm_is_listed():
    @timm.models.register_model
    def mine_of_this_test(pretrained=False, **kwargs):
        return timm.create_model("resnet18", **kwargs)

    assert list_backbones("timm/mine_of_this_test") == ["timm/mine_of_this_test"]


@pytest.mark.slow
def test_the_preprocessing_of_every_ready_config_can_be_read_without_running_it():
    for name in list_configs():
        if not name.startswith("detectors/"):
            model = get_config(name).model
            assert preprocessing_of(name) == {key: model[key] for key in ("pixel_mean", "pixel_std", "input_format")}, (
                name
            )


def test_what_is_built_without_weights_fetches_none(monkeypatch):
    asked = []
    create = build.create

    def created(name, indices, arguments):
        asked.append(arguments.get("pretrained"))
        return create(name, indices, arguments)

    monkeypatch.setattr(build, "create", created)
    node = find_backbone("timm/resnet18").node
    node.pretrained = True
    assert len(build_on_meta(node).output_shape()) == 4
    assert not any(asked) and len(asked) == 1
    assert node.pretrained is True

    def refuse(*_, **__):
        raise AssertionError("weights are fetched")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", refuse)
    assert build_on_meta(L(TorchvisionBackbone)(model_name="resnet18", weights="DEFAULT")).output_shape()


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["resnet50", "timm/swin_tiny_patch4_window7_224", "timm/efficientnet_b0"])
def test_operations_are_counted_as_torch_counts_them(name):
    backbone = build_on_meta(find_backbone(name).node)
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        maps = backbone.eval()(torch.empty(1, 3, 224, 224, device="meta"))
    measures = measure(backbone, (224, 224))
    assert measures.gflops == counter.get_total_flops() / 2e9
    assert measures.shapes == {key: tuple(value.shape[1:]) for key, value in maps.items()}
