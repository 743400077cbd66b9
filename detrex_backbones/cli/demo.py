"""`detrex-backbones demo`: the main job from end to end, without network and without a file of yours."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from detrex_backbones.cli.common import (
    COLUMNS,
    add_command,
    add_json_argument,
    output_folder,
    print_written,
    write_file,
)
from detrex_backbones.cli.feature_files import describe, save
from detrex_backbones.cli.terminal import print_json, print_table, say
from detrex_backbones.errors import DetrexBackbonesError

if TYPE_CHECKING:
    from torch import Tensor, nn

EXAMPLES = """\
examples:
  detrex-backbones demo
  detrex-backbones demo --output /tmp/demo --json
"""

CONFIG = "resnet/resnet50.py"
SEED = 0
TOLERANCE = 1e-5


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "demo",
        run,
        summary="load torchvision's ResNet-50 into ours, run both on a photo and compare",
        about="Write a checkpoint of torchvision's ResNet-50 (seeded random weights), load it\n"
        "into this library's, run both on a photo, and compare every feature map.\n"
        "Needs no network access and no files.",
        examples=EXAMPLES,
    )
    parser.add_argument("--output", metavar="DIR", default="output", help="output folder (default: output)")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    """The demo."""
    import torch

    from detrex_backbones.backbones.images.tensors import read_image
    from detrex_backbones.config import LazyConfig
    from detrex_backbones.features import check_extractor
    from detrex_backbones.features.sources import one_image
    from detrex_backbones.view import extract_maps, sample_photo
    from detrex_backbones.zoo import build_model_with_report, get_config

    folder = output_folder(args.output)
    checkpoint = folder / "torchvision_resnet50_random.pth"
    reference = torchvision_resnet50()
    write_file(checkpoint, lambda file: torch.save(reference.state_dict(), file))
    cfg = LazyConfig.apply_overrides(get_config(CONFIG), ["train.device=cpu"])
    cfg.train.init_checkpoint = str(checkpoint)
    model, report = build_model_with_report(cfg)
    extractor = check_extractor(model)
    image = one_image(str(sample_photo()))
    photo = read_image(image.path)
    maps, centres = extract_maps(extractor, photo)
    difference = largest_difference(maps, reference_maps(reference, photo))
    files = save(cfg, extractor, image, photo, maps, centres, folder, "demo_features")
    rows = describe(extractor, maps)
    if args.json:
        table = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        written = [str(file) for file in (checkpoint, *files)]
        print_json({"maps": table, "report": report and report.to_dict(), "difference": difference, "files": written})
    else:
        say(f"torchvision's ResNet-50, random weights (seed {SEED}), into {CONFIG}:\n\n{report}")
        print_table(COLUMNS, rows)
        say(f"largest relative difference to torchvision's own features: {difference:.1e}\n")
        for file in (checkpoint, *files):
            print_written(file)
        say(f"\nThe same with real weights:\n{real_weights_line()}")
    if not difference <= TOLERANCE:
        raise DetrexBackbonesError(
            f"the features differ from torchvision's by {difference:.1e}, more than the {TOLERANCE:.0e} that rounding "
            f"explains: please report it."
        )


def torchvision_resnet50() -> nn.Module:
    """torchvision's network; its running statistics are random too, as fresh ones would hide a norm left out."""
    import torch
    import torchvision

    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model: nn.Module = torchvision.models.resnet50(weights=None)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.load_state_dict(
                    {
                        **module.state_dict(),
                        "running_mean": torch.randn(module.num_features) / 10,
                        "running_var": torch.rand(module.num_features) + 0.5,
                    }
                )
    return model.eval()


def reference_maps(model: nn.Module, photo: Any) -> dict[str, Tensor]:
    """torchvision's own features of the photo, by torchvision's own preprocessing: res2 to res5."""
    import torch
    from torchvision.models.feature_extraction import create_feature_extractor
    from torchvision.transforms.functional import normalize, to_tensor

    layers = {f"layer{index}": f"res{index + 1}" for index in range(1, 5)}
    image = normalize(to_tensor(photo), mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    with torch.inference_mode():
        maps = create_feature_extractor(model, layers)(image[None])
    return {name: value[0] for name, value in maps.items()}


def largest_difference(maps: dict[str, Tensor], references: dict[str, Tensor]) -> float:
    """The largest `||ours - theirs|| / ||theirs||` over the maps."""
    return max(float((maps[name] - value).norm() / value.norm()) for name, value in references.items())


def real_weights_line() -> str:
    """The one line that does it with torchvision's trained weights."""
    return f"detrex-backbones features {CONFIG} train.init_checkpoint=torchvision://resnet50-v2"
