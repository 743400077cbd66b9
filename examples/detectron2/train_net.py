"""detectron2's trainer and hooks with this library's checkpointer: the import line is all that is special about it.

python examples/detectron2/train_net.py --config-file examples/detectron2/generated.py train.max_iter=40
python examples/detectron2/train_net.py --config-file examples/detectron2/generated.py --resume train.max_iter=60
"""

from detectron2.config import LazyConfig, instantiate
from detectron2.engine import (
    AMPTrainer,
    SimpleTrainer,
    default_argument_parser,
    default_setup,
    default_writers,
    hooks,
    launch,
)
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm

from detrex_backbones import DetectionCheckpointer  # was: from detectron2.checkpoint import DetectionCheckpointer


def train(cfg, resume):
    """Train `cfg.model` up to `cfg.train.max_iter`, from the last checkpoint of `train.output_dir` if `resume`."""
    model = instantiate(cfg.model).to(cfg.train.device)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    model = create_ddp_model(model, **cfg.train.ddp)
    kind = AMPTrainer if cfg.train.amp.enabled else SimpleTrainer
    trainer = kind(model, instantiate(cfg.dataloader.train), optimizer)
    checkpointer = DetectionCheckpointer(model, cfg.train.output_dir, trainer=trainer)
    trainer.register_hooks([hooks.IterationTimer(), hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier))])
    if comm.is_main_process():
        writers = default_writers(cfg.train.output_dir, cfg.train.max_iter)
        trainer.register_hooks(
            [
                hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer),
                hooks.PeriodicWriter(writers, period=cfg.train.log_period),
            ]
        )
    # Before the first step: weights that don't fit are an error here, and nothing was trained in vain.
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    going_on = resume and checkpointer.has_checkpoint()
    trainer.train(trainer.iter + 1 if going_on else 0, cfg.train.max_iter)
    return trainer


def main(args):
    cfg = LazyConfig.apply_overrides(LazyConfig.load(args.config_file), args.opts)
    default_setup(cfg, args)
    train(cfg, args.resume)


if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
