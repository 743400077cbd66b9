"""torchvision's names into a ResNet of ours: what the loader says, and what it refuses.

python examples/load_and_report.py
"""

import tempfile
from pathlib import Path

import torch
import torchvision

from detrex_backbones import BasicStem, ResNet, load_checkpoint, make_stage
from detrex_backbones.errors import CheckpointMatchError


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet18.pth"
        torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)

        backbone = ResNet(BasicStem(norm="FrozenBN"), make_stage(18), out_features=["res3", "res4", "res5"])
        print(load_checkpoint(backbone, path))

        classifier = ResNet(BasicStem(norm="FrozenBN"), make_stage(18), num_classes=20)
        try:
            load_checkpoint(classifier, path)
        except CheckpointMatchError as error:
            print(f"\nrefused: {error}\n")
        print(load_checkpoint(classifier, path, allow_missing=["linear.*"]))


if __name__ == "__main__":
    main()
