"""Training a detector from its config: build, go on where it was, step by step, evaluate."""

from __future__ import annotations

import importlib.util
import inspect
import json
import logging
import math
import pydoc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detrex_backbones import FrozenBatchNorm2d, LazyConfig, LoadReport, instantiate, load_checkpoint_distributed
from detrex_backbones.errors import ArgumentError, ConfigKeyError, DetrexBackbonesError, closest
from detrex_backbones.zoo import find_device
from train_detector.coco import CocoDetection, StepSampler, collate
from train_detector.evaluate import ap_table, average_precision, detect, find_detections
from train_detector.files import save_whole, write_whole
from train_detector.log import RunLog, read_metrics
from train_detector.optim import AveragedWeights
from train_detector.parallel import Processes, processes
from train_detector.pictures import draw_curve, draw_predictions
from train_detector.settings import Settings
from train_detector.state import RunState, latest

__all__ = ["TrainingError", "train"]

logger = logging.getLogger(__name__)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
PICTURES = 12
SHOWN = 8  # modules in a message
# Where torchvision's detectors count their classes, the background included.
CLASSES = {"head.classification_head": "num_classes", "roi_heads.box_predictor.cls_score": "out_features"}


class TrainingError(DetrexBackbonesError, RuntimeError):
    """A run that can't go on: its loss is no number any more."""


def train(cfg: DictConfig, *, resume: bool = False) -> dict[str, Any]:
    """Train the detector of a config, alone or as one of the processes that torchrun started.

    Written to `train.output`: checkpoints/, metrics.jsonl, tensorboard/, and at each evaluation predictions.png,
    curve.png, table.txt and results.json; at the end model.pth with the weights, averaged ones where there are.

    Args:
        cfg: `model`, `data`, `optimizer`, `schedule` and `train`, as `load_config` gives them.
        resume: go on from the newest checkpoint in `train.output`; from the beginning where there is none.

    Returns:
        The last evaluation's figures, see `average_precision`.

    Raises:
        ConfigError, ArgumentError, InputError: something in the config or the data that can't be; nothing is begun.
        TrainingError: the loss isn't finite.
        CheckpointError: weights to begin with or a checkpoint that can't be read or written.
    """
    missing = [name for name in ("pycocotools", "tensorboard") if importlib.util.find_spec(name) is None]
    if missing:
        raise ArgumentError(f"training needs {' and '.join(missing)}: pip install 'detrex-backbones[train]'.")
    settings = Settings.of(cfg)
    instantiate(cfg.schedule)  # a mistake in it is said now
    _check_keys(cfg.model)
    with processes(find_device(settings.device)) as ours:
        return _Run(cfg, settings, ours, resume=resume).go()


@dataclass
class _Data:
    train: CocoDetection
    test: CocoDetection


class _Run:
    def __init__(self, cfg: DictConfig, settings: Settings, ours: Processes, *, resume: bool) -> None:
        self.settings, self.ours = settings, ours
        self.folder = Path(settings.output)
        self.checkpoints = self.folder / "checkpoints"
        newest = ours.from_first(latest(self.checkpoints))  # whose folder only the first process may see
        if newest and not resume:
            raise ArgumentError(
                f"{self.folder} holds a run already. --resume goes on with it; or give another train.output."
            )
        self.data = _load_data(cfg, ours)
        self.batch: int = cfg.data.total_batch_size
        self.workers: int = cfg.data.get("workers", 0)
        self.sampler = StepSampler(
            len(self.data.train), self.batch, settings.steps, 0, settings.seed, ours.rank, ours.world
        )
        torch.manual_seed(settings.seed)  # the same weights on all processes
        text = _config_text(cfg)
        model: nn.Module = instantiate(cfg.model).to(ours.device)
        _check_classes(model, self.data)
        self.model = ours.wrap(model, settings.parallel, find_unused_parameters=settings.find_unused_parameters)
        self.bare = model  # without DDP around it
        if not newest:
            _load_weights(model, settings, ours)
        self.optimizer = instantiate({**cfg.optimizer, "params": {**cfg.optimizer.params, "model": model}})
        self.schedule = instantiate(cfg.schedule)
        self.averages = AveragedWeights(model, settings.ema) if settings.ema else None
        self.scaler = torch.amp.GradScaler(ours.device.type, enabled=settings.amp == "fp16")
        self.state = RunState(self.model, self.optimizer, self.scaler, self.averages, text, ours)
        self.start = self.state.restore(newest) if newest else 0
        self.sampler.start = self.start
        if ours.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write("config.yaml", text)

    def go(self) -> dict[str, Any]:
        settings = self.settings
        log = RunLog(self.folder, self.start, settings.steps, settings.log_every) if self.ours.first else None
        if log and self.start:
            log.say(f"going on at step {self.start} of {settings.steps}")
        figures: dict[str, Any] = {}
        loader: Any = DataLoader(
            self.data.train, batch_sampler=self.sampler, num_workers=self.workers, collate_fn=collate
        )
        for step, (images, targets) in enumerate(loader, self.start):
            entry = self._step(step, images, targets)
            done = step + 1
            if log:
                log.step(entry)
            if done % settings.checkpoint_every == 0 or done == settings.steps:
                self.state.save(self.checkpoints, done)
            if settings.evaluate_every and done % settings.evaluate_every == 0 and done < settings.steps:
                figures = self._evaluate(done, log)
        figures = self._evaluate(settings.steps, log, last=True)
        if log:
            log.close()
        return figures

    def _step(self, step: int, images: Sequence[Tensor], targets: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """One step of the optimizer; what there is to log of it."""
        self.model.train()
        # What is drawn in a step follows from its number, so that a resumed run draws the same.
        torch.manual_seed(int(np.random.SeedSequence([self.settings.seed, step, self.ours.rank]).generate_state(1)[0]))
        factor = self.schedule(step)
        base = self.optimizer.defaults["lr"]
        for group in self.optimizer.param_groups:
            group["lr"] = base * factor * group.get("lr_factor", 1.0)
        device = self.ours.device
        images = [image.to(device) for image in images]
        targets = [{key: target[key].to(device) for key in ("boxes", "labels")} for target in targets]
        with torch.autocast(device.type, DTYPES.get(self.settings.amp), enabled=bool(self.settings.amp)):
            losses: dict[str, Tensor] = self.model(images, targets)
            loss = torch.stack(list(losses.values())).sum()
        parts = dict(zip(losses, self.ours.mean(list(losses.values())), strict=True))
        total = sum(parts.values())
        if not math.isfinite(total):
            shown = ", ".join(f"{name}={value:.3g}" for name, value in parts.items())
            raise TrainingError(
                f"the loss of step {step} isn't finite: {shown}. Lower optimizer.lr, lengthen schedule.warmup, or use "
                f"train.amp='' or 'bf16'. The last checkpoint is in {self.checkpoints}."
            )
        self.optimizer.zero_grad(set_to_none=True)
        scaled: Any = self.scaler.scale(loss)
        scaled.backward()
        self.scaler.unscale_(self.optimizer)
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.averages:
            self.averages.update()
        return {"step": step, "loss": total, "lr": base * factor, **parts}

    def _evaluate(self, done: int, log: RunLog | None, *, last: bool = False) -> dict[str, Any]:
        """Figures and pictures with the averaged weights, where there are; the first process writes them."""
        self.ours.share_buffers(self.bare)
        if self.averages:
            self.averages.swap()
        if log:
            log.say(f"looking at {len(self.data.test)} test images ...")
        share = max(1, self.batch // self.ours.world)
        found = find_detections(self.bare, self.data.test, share, self.ours)
        images, targets = collate([self.data.test[index] for index in range(min(PICTURES, len(self.data.test)))])
        seen = [one for start in range(0, len(images), share) for one in self._detect(images[start : start + share])]
        if last:
            self._write_weights()
        if self.averages:
            self.averages.swap()
        figures: dict[str, Any] = {}
        if log:
            figures = average_precision(self.data.test, found)
            log.evaluation(done, figures)
            table = ap_table(figures)
            log.say(f"\nafter {done} steps, in per cent:\n{table}\n")
            self._write("table.txt", table + "\n")
            self._write("results.json", json.dumps({"steps": done, **figures}, indent=2) + "\n")
            draw_predictions(self.folder / "predictions.png", images, seen, targets, self.data.test.names)
            draw_curve(self.folder / "curve.png", read_metrics(self.folder))
        return figures

    def _detect(self, images: Sequence[Tensor]) -> Iterator[dict[str, Tensor]]:
        yield from detect(self.bare, images, self.ours)

    def _write(self, name: str, text: str) -> None:
        write_whole(self.folder / name, text.encode())

    def _write_weights(self) -> None:
        """model.pth, as `load_checkpoint` and `train.init_checkpoint` take it."""
        weights = self.state.weights()
        if self.ours.first:
            save_whole(self.folder / "model.pth", {"model": weights})


def _check_keys(model: DictConfig) -> None:
    """Refuse what torchvision's detectors would take for an argument of their transform and leave unread."""
    target: Any = pydoc.locate(model._target_) if isinstance(model._target_, str) else model._target_
    if not getattr(target, "__module__", "").startswith("torchvision.models.detection"):
        return
    known = {*inspect.signature(target).parameters, *inspect.signature(GeneralizedRCNNTransform).parameters}
    for key in set(map(str, model)) - known - {"_target_"}:
        raise ConfigKeyError(f"model.{key}: {target.__name__} has no such argument.{closest(key, known)}")


def _load_weights(model: nn.Module, settings: Settings, ours: Processes) -> None:
    """Those of `train.init_checkpoint`, which only the first process reads."""
    report = None
    if settings.init_checkpoint:
        report = load_checkpoint_distributed(model, settings.init_checkpoint, **settings.load_options)
    frozen = _frozen_at_random(model, report)
    if frozen and ours.first:
        more = f" and {len(frozen) - SHOWN} more" if len(frozen) > SHOWN else ""
        logger.warning("frozen, but not loaded from a checkpoint: %s%s", ", ".join(frozen[:SHOWN]), more)


def _frozen_at_random(model: nn.Module, report: LoadReport | None) -> list[str]:
    """Paths of the modules with parameters or statistics that neither a checkpoint nor training will ever set."""
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    for path, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d):
            frozen += [f"{path}.{name}" for name, _ in module.named_buffers()]
    loaded = {item.model_key for item in report.loaded} if report else set()
    return list(dict.fromkeys(name.rpartition(".")[0] for name in frozen if name not in loaded))


def _load_data(cfg: DictConfig, ours: Processes) -> _Data:
    """The images of both parts; the first process draws them where the config says how."""
    if "prepare" in cfg.data and ours.first:
        instantiate(cfg.data.prepare)
    ours.wait()
    data = _Data(instantiate(cfg.data.train), instantiate(cfg.data.test))
    if ours.first:
        data.train.check_images()
        data.test.check_images()
    if data.train.names != data.test.names:
        raise ArgumentError(
            f"data.train has the classes {', '.join(data.train.names)}, data.test has {', '.join(data.test.names)}: "
            f"they must be the same, in the same order of ids."
        )
    return data


def _check_classes(model: nn.Module, data: _Data) -> None:
    """Refuse a head for another number of classes than the data have."""
    modules = dict(model.named_modules())
    given = next((getattr(modules[path], count) for path, count in CLASSES.items() if path in modules), None)
    wanted = len(data.train.names) + 1
    if given is not None and given != wanted:
        raise ArgumentError(
            f"model.num_classes={given}, but the data have {wanted - 1} classes ({', '.join(data.train.names[:8])}"
            f"{' ...' if wanted > 9 else ''}) and the background: set model.num_classes={wanted}."
        )


def _config_text(cfg: DictConfig) -> str:
    """The parts of the config that a run keeps, as YAML; of `train`, what changes the numbers."""
    kept = {key: cfg.train[key] for key in ("steps", "seed", "amp", "clip", "ema") if key in cfg.train}
    parts = {key: cfg[key] for key in ("model", "data", "optimizer", "schedule")}
    return str(LazyConfig.to_yaml(OmegaConf.create({**parts, "train": kept}, flags={"allow_objects": True})))
