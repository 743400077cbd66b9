"""faster_rcnn.py with another backbone by one call, on one generated batch: trains on a CPU, without a download.

python examples/detectron2/train_net.py --config-file examples/detectron2/generated.py
"""

import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.structures import Boxes, Instances

from detrex_backbones import swap_backbone


class Scenes:
    """The same batch again and again: grey images of noise, each with one bright rectangle to be found.

    Args:
        batch_size: images in it.
        size: height and width of each, in pixels.
    """

    def __init__(self, batch_size, size):
        generator = torch.Generator().manual_seed(0)
        self.batch = []
        for _ in range(batch_size):
            image = 100 + 10 * torch.randn(3, size, size, generator=generator)
            x, y, width, height = torch.randint(size // 4, size // 2, (4,), generator=generator).tolist()
            image[:, y : y + height, x : x + width] += 100
            found = Instances((size, size))
            found.gt_boxes = Boxes([[x, y, x + width, y + height]])
            found.gt_classes = torch.tensor([0])
            self.batch.append({"image": image, "instances": found, "height": size, "width": size})

    def __iter__(self):
        while True:
            # What is drawn while training on it, too: a run that is resumed is then the same run.
            torch.manual_seed(0)
            yield self.batch


_cfg = LazyConfig.load_rel("faster_rcnn.py")
swap_backbone(_cfg, "resnet18")  # with its mean and std; FPN's lateral convolutions follow
model, optimizer, lr_multiplier, train = _cfg.model, _cfg.optimizer, _cfg.lr_multiplier, _cfg.train

for _part in (model.backbone.bottom_up.stem, model.backbone.bottom_up.stages):
    _part.norm = "BN"  # nothing is loaded: frozen norms would stay the identity
model.backbone.bottom_up.freeze_at = 0
model.proposal_generator.post_nms_topk = (50, 50)
model.roi_heads.batch_size_per_image = 32
model.roi_heads.num_classes = 1
dataloader = {"train": L(Scenes)(batch_size=2, size=64)}
optimizer.lr = 0.002
lr_multiplier.warmup_length = 0.1
train.update(
    init_checkpoint="",
    device="cpu",
    seed=0,
    max_iter=20,
    log_period=1,
    eval_period=0,
    checkpointer={"period": 5, "max_to_keep": 2},
    output_dir="output/detectron2",
)
