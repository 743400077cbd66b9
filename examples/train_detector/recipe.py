"""How a detector is trained where its config doesn't say so. The data are small scenes that draw themselves."""

from torch.optim import AdamW

from detrex_backbones.config import LazyCall as L
from train_detector.coco import CocoDetection
from train_detector.optim import WarmupCosine, param_groups
from train_detector.scenes import make_scenes

train = dict(
    device="",  # "" is the GPU if there is one, else the CPU
    init_checkpoint="",  # path of a checkpoint, or name of known weights; "" leaves the weights random
    load_options=dict(),  # keywords of load_checkpoint: allow_missing, stem_adapt, check_preprocessing ...
    output="output/detector",  # checkpoints, curves, tables and pictures
    steps=300,
    seed=0,
    amp="",  # mixed precision: "bf16" or "fp16"
    clip=5.0,  # of the gradients' norm; 0 for none
    ema=0.0,  # decay of the averaged weights that are evaluated, such as 0.999; 0 for none
    log_every=10,  # steps
    checkpoint_every=100,
    evaluate_every=0,  # 0 for the end alone
    parallel="ddp",  # how several processes share the work: "ddp" or "fsdp2"
    find_unused_parameters=False,  # of DDP: for networks with parts that a step may leave out
)

# `prepare` is called before anything is read; `~data.prepare` for data of your own.
data = dict(
    folder="output/scenes",
    prepare=L(make_scenes)(folder="${data.folder}", train=400, test=100, size=128, seed=0),
    train=L(CocoDetection)(
        images="${data.folder}/train", annotations="${data.folder}/train.json", flip=0.5, seed="${train.seed}"
    ),
    test=L(CocoDetection)(images="${data.folder}/test", annotations="${data.folder}/test.json"),
    total_batch_size=8,  # images of a step, over all processes
    workers=0,  # processes that read images, for each process that trains
)

optimizer = L(AdamW)(
    # `model` is put in when there is one. From random weights the backbone has as much to learn as the rest: with
    # trained ones, 0.1 is the usual factor.
    params=L(param_groups)(backbone_factor=0.5, weight_decay=0.05),
    lr=1e-3,
    eps=1e-8,  # beside it, a smaller gradient is nothing
)
schedule = L(WarmupCosine)(steps="${train.steps}", warmup=30, last=0.02)
