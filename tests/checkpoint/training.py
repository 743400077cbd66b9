"""A training run, for what saves and resumes one."""

import torch
from torch import nn

from detrex_backbones import DetectionCheckpointer
from tests.checkpoint.nets import raw, snapshot
from tests.reference import noise


class Run:
    """A training run of a small network."""

    def __init__(self, folder="", scheduler="steps", seed=0, **kwargs):
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.scheduler = {
            "steps": lambda: torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [2, 4, 4, 7]),
            "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 10),
        }[scheduler]()
        self.checkpointer = DetectionCheckpointer(
            self.model, folder, optimizer=self.optimizer, scheduler=self.scheduler, **kwargs
        )

    def train(self, first, last):
        for iteration in range(first, last):
            self.optimizer.zero_grad()
            self.model(noise(2, 3, 6, 6, seed=iteration)).square().mean().backward()
            self.optimizer.step()
            self.scheduler.step()
        return self

    def state(self):
        momentum = [raw(value["momentum_buffer"]) for value in self.optimizer.state.values()]
        return snapshot(self.model), momentum, self.scheduler.get_last_lr(), self.optimizer.param_groups[0]["lr"]
