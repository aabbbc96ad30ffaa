"""A task as small as one can be: three layers, noise in four colours. As a script it is a command line."""

import itertools
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import trainer.tasks
from trainer.common.distributed import World
from trainer.common.feed import share_of
from trainer.common.job import Task
from trainer.common.settings import RunSettings
from trainer.common.stepped import Stepped
from trainer.common.synced_norm import synced
from trainer.data.samplers import Endless, Shuffled, State, after


class TinySettings(RunSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    steps: int = 60
    batch: int = 16
    interval: int = 5
    learning_rate: float = 0.05
    evaluate: int = 4
    dropout: float = 0.0
    pause: float = 0.0  # seconds behind each step
    halt: int = 0  # step before which it waits for a signal


class TinyJob(Stepped):
    score = "accuracy"

    def __init__(self, settings, world=World()):  # noqa: B008
        super().__init__(settings, world, {})
        torch.set_num_threads(1)
        self.elsewhere |= {"pause", "halt"}
        layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        layers += [nn.Dropout(settings.dropout), nn.Linear(8, 4)]
        self.train_module(synced(nn.Sequential(*layers), world))
        rng = np.random.default_rng(0)
        self.labels = torch.from_numpy(rng.integers(0, 4, 80))
        self.images = torch.from_numpy(rng.normal(0, 1, (80, 3, 8, 8)).astype(np.float32))
        self.images += functional.one_hot(self.labels, 4)[:, 1:, None, None].float()

    def facts(self):
        return [("images", "80")]

    def example(self):
        return {"images": self.images[: self.settings.batch], "labels": self.labels[: self.settings.batch]}

    def batches(self, interval):
        sampler = Shuffled(80, self.settings.batch, 1, share_of(self.world))
        start = after(sampler, State(), interval * self.course.steps)
        chosen_by_step = itertools.islice(Endless(sampler, start), self.course.steps)
        for step, chosen in enumerate(chosen_by_step, interval * self.course.steps):
            time.sleep(600 if step == self.settings.halt > 0 else self.settings.pause)
            yield {"images": self.images[chosen], "labels": self.labels[chosen]}

    def losses(self, module, batch, step):
        return {"loss": functional.cross_entropy(module(batch["images"]), batch["labels"])}

    def evaluate(self, module):
        with torch.inference_mode():
            right = module(self.images).argmax(1) == self.labels
        return {"accuracy": float(right.float().mean())}


def finish(job, module, out, export, advance, say):
    say("trained")


TASK = Task(TinySettings, lambda settings, world, advance: TinyJob(settings, world), finish)

if __name__ == "__main__":
    trainer.tasks.TASKS["tiny"] = "noise told apart"
    sys.modules["trainer.tasks.tiny"] = sys.modules["__main__"]
    from trainer.__main__ import app

    app()
