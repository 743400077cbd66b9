"""Train a torchvision detector over any backbone, alone or under torchrun.
The tutorial is docs/training.md.

python examples/train_detector.py
python examples/train_detector.py backbone=timm/convnext_atto
python examples/train_detector.py --config detectors/retinanet_resnet18_fpn.py
python examples/train_detector.py --resume
torchrun --nproc-per-node 2 examples/train_detector.py train.parallel=fsdp2
"""

import argparse
import logging
import sys

from detrex_backbones.cli.common import add_overrides_argument, load_config
from detrex_backbones.errors import DetrexBackbonesError
from detrex_backbones.training.parallel import is_first
from detrex_backbones.training.train import train


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config",
        metavar="CONFIG",
        default="detectors/faster_rcnn_resnet18_fpn.py",
        help="a ready config, or a path to a config file (default: detectors/faster_rcnn_resnet18_fpn.py)",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in train.output")
    add_overrides_argument(parser)
    args = parser.parse_intermixed_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        cfg = load_config(args)
        train(cfg, resume=args.resume)
    except DetrexBackbonesError as error:
        print(f"train_detector: {error}", file=sys.stderr)
        return 1
    if is_first():
        print(f"model.pth, table.txt, curve.png, predictions.png: {cfg.train.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
