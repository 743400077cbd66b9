"""Train a torchvision detector over any backbone, alone or under torchrun.
The tutorial is docs/training.md.

python examples/train_detector
python examples/train_detector backbone=timm/convnext_atto
python examples/train_detector --config detectors/retinanet_resnet18_fpn.py
python examples/train_detector --resume
torchrun --nproc-per-node 2 examples/train_detector train.parallel=fsdp2
"""

import argparse
import logging
import sys

from detrex_backbones.errors import DetrexBackbonesError
from train_detector import train
from train_detector.config import load_config
from train_detector.parallel import is_first


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config",
        metavar="CONFIG",
        default="detectors/faster_rcnn_resnet18_fpn.py",
        help="a ready config, or a path to a config file (default: detectors/faster_rcnn_resnet18_fpn.py)",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in train.output")
    parser.add_argument(
        "overrides",
        metavar="OVERRIDE",
        nargs="*",
        default=[],
        help="key=value, changes the config; backbone=NAME swaps the backbone, before all others",
    )
    args = parser.parse_intermixed_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        cfg = load_config(args.config, args.overrides)
        train(cfg, resume=args.resume)
    except DetrexBackbonesError as error:
        print(f"train_detector: {error}", file=sys.stderr)
        return 1
    if is_first():
        print(f"model.pth, table.txt, curve.png, predictions.png: {cfg.train.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
