"""How a student begins: with a teacher's last layer, about a teacher's mean, with parts that stay as they are."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.backbones import Backbone, norms
from trainer.common.settings import ConfigError
from trainer.losses.distil import copy_layer
from trainer.teachers.interface import TeacherSettings
from trainer.teachers.modules import backbone_of
from trainer.teachers.sources import BACKBONE

_HEAD = "head"  # what every backbone calls its last layer, from map to summary


def copy_last(backbone: Backbone, name: str, teachers: Sequence[TeacherSettings]) -> None:
    """Give a backbone the last layer of a teacher's.

    Args:
        backbone: of the student.
        name: of the teacher.
        teachers: among these.

    Raises:
        ConfigError: there is no such teacher, or the layers are not alike.
        UserError: the teacher's run cannot be read.
    """
    teacher = next((each for each in teachers if each.name == name), None)
    if teacher is None or not teacher.source.startswith(BACKBONE):
        raise ConfigError(f"copied = {name!r}; name a teacher whose source begins with {BACKBONE}")
    if teacher.adaptor != "direct" or teacher.standardise:
        raise ConfigError(
            f"the last layer of {name} makes its own values: set its adaptor to direct, and standardise to false"
        )
    theirs = backbone_of(name, teacher.source.removeprefix(BACKBONE))
    try:
        copy_layer(backbone.get_submodule(_HEAD), theirs.get_submodule(_HEAD))
    except (AttributeError, ValueError) as error:
        raise ConfigError(f"copied = {name!r}: {error}; choose the student's width and dim so") from error


def start_at(backbone: Backbone, mean: Tensor) -> None:
    """Let a backbone's summaries begin about ``mean`` [width]: the norm that ends its head adds it.

    To come there step by step from 0 takes most of a short run, where the mean is much longer than what lies about it.
    """
    last = list(norms(backbone.get_submodule(_HEAD)).values())[-1]
    if isinstance(last, nn.BatchNorm2d) and last.bias.shape == mean.shape:
        with torch.no_grad():
            last.bias.copy_(mean)


def freeze(student: nn.Module, starts: Sequence[str]) -> None:
    """Leave those parameters as they are whose names begin so.

    Raises:
        ConfigError: there are none.
    """
    for start in starts:
        chosen = [parameter for name, parameter in student.named_parameters() if name.startswith(start)]
        if not chosen:
            parts = {".".join(name.split(".")[:2]) for name, _ in student.named_parameters()}
            raise ConfigError(
                f"frozen: nothing in the student is called {start}…; there are {', '.join(sorted(parts))}"
            )
        for parameter in chosen:
            parameter.requires_grad_(False)
