"""The task ``recognise`` in float64, as a command line: what float32 rounds, chaos makes large within a few steps."""

import sys

import torch

import trainer.tasks
from trainer.common.job import Task
from trainer.tasks import recognise


def build(settings, world, advance):
    job = recognise.build(settings, world, advance)
    job.module.double()
    return job


def finish(job, module, out, export, advance, say):
    say("trained")


TASK = Task(recognise.RecogniseSettings, build, finish)

if __name__ == "__main__":
    torch.Tensor.float = torch.Tensor.double  # pictures and embeddings, too
    trainer.tasks.TASKS["double"] = "the task recognise in float64"
    sys.modules["trainer.tasks.double"] = sys.modules["__main__"]
    from trainer.__main__ import app

    app()
