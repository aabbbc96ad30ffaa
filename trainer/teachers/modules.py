"""Teachers that are PyTorch modules: models of timm, RADIO and other repositories, TorchScript files, our own runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engines.pack import FaceModel
from trainer.backbones import Backbone, BackboneError, make
from trainer.backbones.timm import TimmBackbone
from trainer.common import checkpoint
from trainer.common.stepped import start_from
from trainer.teachers.interface import LAYER, MAP, SUMMARY, TeacherError, TeacherSettings
from trainer.teachers.weights import digest, only_weights, put, read_weights

RANDOM = "random"
_SIDE = 224  # of what has no side of its own
_SEED = 0

Read = Callable[[Any], dict[str, Tensor]]
"""Summary and map from what a module returns."""


class ModuleTeacher:
    """A module that reads normalised RGB pictures.

    Attributes:
        side: of its pictures.
        sha256: of its weights and whatever else decides.
        module: in evaluation mode, without gradients.
        face: None: no pack says how it wants faces.
    """

    face: FaceModel | None = None

    def __init__(
        self,
        settings: TeacherSettings,
        module: nn.Module,
        side: int,
        scale: tuple[Sequence[float], Sequence[float]],
        read: Read,
        answers: Sequence[str],
        device: torch.device,
    ) -> None:
        """Prepare it.

        Args:
            settings: of this teacher.
            module: trained.
            side: of its pictures.
            scale: mean and deviation of its pixels, 0 to 1, where the settings name none.
            read: what it returns.
            answers: what is wanted.
            device: where it runs.

        Raises:
            TeacherError: it has no such layer.
        """
        self.module = module.eval().to(device)
        for parameter in module.parameters():  # a TorchScript module cannot be told as a whole
            parameter.requires_grad_(False)
        self.side, self._read, self._answers = side, read, tuple(answers)
        self._settings = settings
        self._mean, self._deviation = (
            torch.tensor(tuple(set_ or own))[:, None, None].to(device)
            for set_, own in zip((settings.mean, settings.deviation), scale, strict=True)
        )
        self.sha256 = digest(module, settings.source, settings.entry, sorted(settings.arguments.items()))
        self._seen: dict[str, Tensor] = {}
        for answer in answers:
            if answer.startswith(LAYER):
                self._listen(answer)

    def __call__(self, pictures: Tensor) -> dict[str, Tensor]:
        """See ``Teacher.__call__``."""
        device = self._mean.device
        with torch.no_grad():
            images = (pictures.to(device).float() / 255 - self._mean) / self._deviation
            self._seen.clear()
            found = {**self._read(self.module(images)), **self._seen}
        missing = [answer for answer in self._answers if answer not in found]
        if missing:
            raise TeacherError(
                f"teacher {self._settings.name} has no {' and no '.join(missing)}; set their weights to 0"
            )
        return {answer: found[answer].float().to(pictures.device) for answer in self._answers}

    def _listen(self, answer: str) -> None:
        name = answer.removeprefix(LAYER)
        inside = self.module.model if isinstance(self.module, _Whole) else self.module
        layer = dict(inside.named_modules()).get(name)
        if layer is None or isinstance(self.module, torch.jit.ScriptModule):
            raise TeacherError(f"teacher {self._settings.name} has no layer {name!r} whose output can be had")

        def keep(_layer: nn.Module, _reads: object, out: Tensor) -> None:
            self._seen[answer] = out

        layer.register_forward_hook(keep)


def open_timm(
    settings: TeacherSettings, model: str, answers: Sequence[str], device: torch.device
) -> ModuleTeacher:
    """A model of timm.

    Raises:
        TeacherError: its weights cannot be had.
        BackboneError: there is no such model, or it does not take such pictures.
    """
    if not settings.weights:
        raise TeacherError(
            f'teacher {settings.name}: name the file of its weights; weights = "{RANDOM}" takes it untrained'
        )
    side = settings.side or _SIDE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        backbone = TimmBackbone(model, side, 1)
    if settings.weights != RANDOM:
        path = Path(settings.weights).expanduser()
        put(backbone.model, read_weights(path), f"teacher {settings.name}, {path}")
    config = backbone.model.pretrained_cfg
    return ModuleTeacher(
        settings,
        _Whole(backbone),
        side,
        (config["mean"], config["std"]),
        lambda found: found,
        answers,
        device,
    )


class _Whole(nn.Module):
    """A model of timm whose pooled features are the summary, not what a new layer makes of them."""

    def __init__(self, backbone: TimmBackbone) -> None:
        super().__init__()
        self.model = backbone.model
        self._parts: list[TimmBackbone] = [
            backbone
        ]  # in a list it is no part of this module: its own layer is random

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found, pooled = self._parts[0].pooled(images)
        return {MAP: found, SUMMARY: pooled}


def open_hub(
    settings: TeacherSettings, source: str, answers: Sequence[str], device: torch.device
) -> ModuleTeacher:
    """A model of a local repository with a hubconf.py, or a TorchScript file.

    Raises:
        TeacherError: it cannot be loaded.
    """
    path = Path(source).expanduser()
    what = f"teacher {settings.name}, {path}"
    try:
        # A repository is a program that the user has chosen. What it loads is not: weights, and nothing that can run.
        with only_weights():
            module: Any = _loaded(path, settings)
    except Exception as error:  # whatever a repository of others raises
        raise TeacherError(f"{what} cannot be loaded ({type(error).__name__}: {error})") from error
    if not isinstance(module, nn.Module):
        raise TeacherError(f"{what}: {settings.entry} makes a {type(module).__name__}, not a module")
    if settings.weights:
        weights = Path(settings.weights).expanduser()
        put(module, read_weights(weights), f"{what}, {weights}")
    side = settings.side or _SIDE
    return ModuleTeacher(
        settings, module, side, ((0.0,) * 3, (1.0,) * 3), partial(read_hub, settings.name), answers, device
    )


def _loaded(path: Path, settings: TeacherSettings) -> Any:
    if path.is_dir():
        return torch.hub.load(str(path), settings.entry, source="local", **settings.arguments)  # type: ignore[no-untyped-call]
    return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]


def read_hub(name: str, found: Any) -> dict[str, Tensor]:
    """Summary and map of what models return: RADIO's pair or record, a table, one tensor.

    Maps may come as tokens of a square picture [n, tokens, c]. Of a map alone the mean is the summary.

    Raises:
        TeacherError: it is something else.
    """
    if isinstance(found, Mapping):
        found = found.get("backbone", found)  # RADIO's, beside its adaptors'
    if isinstance(found, Mapping):
        summary, features = found.get("summary"), found.get("features", found.get("map"))
    elif isinstance(found, tuple | list) and len(found) >= 2:
        summary, features = found[:2]
    elif isinstance(found, Tensor) and found.ndim == 2:
        summary, features = found, None
    else:
        summary, features = None, found
    out = {}
    if isinstance(features, Tensor) and features.ndim == 3:
        cells = math.isqrt(features.shape[1])
        if cells**2 == features.shape[1]:
            features = features.transpose(1, 2).reshape(len(features), -1, cells, cells)
    if isinstance(features, Tensor) and features.ndim == 4:
        out[MAP] = features
    if isinstance(summary, Tensor) and summary.ndim == 2:
        out[SUMMARY] = summary
    elif MAP in out:
        out[SUMMARY] = out[MAP].mean((2, 3))
    if not out:
        raise TeacherError(
            f"teacher {name} returns {type(found).__name__}; needed are a summary [n, d] and a map [n, c, h, w] or its "
            "tokens"
        )
    return out


def open_run(
    settings: TeacherSettings, run: str, answers: Sequence[str], device: torch.device
) -> ModuleTeacher:
    """The backbone of a run of this trainer.

    Raises:
        TeacherError: the run has trained no backbone.
        CheckpointError: there is no such run, or it is damaged.
    """
    backbone = backbone_of(settings.name, run)
    return ModuleTeacher(
        settings,
        backbone,
        backbone.side,
        ((0.5,) * 3, (0.5,) * 3),
        lambda found: {MAP: found.map, SUMMARY: found.summary},
        answers,
        device,
    )


def backbone_of(name: str, run: str) -> Backbone:
    """The trained backbone of a run, in evaluation mode.

    Raises:
        TeacherError: the run has trained no backbone.
        CheckpointError: there is no such run, or it is damaged.
    """
    _, meta = checkpoint.load(checkpoint.file_of(run))
    config: dict[str, Any] = meta.get("config") or {}
    try:
        backbone = make(config["backbone"], config["side"], config["dim"], config["width"])
    except (TypeError, KeyError, BackboneError) as error:
        raise TeacherError(
            f"teacher {name}: {run} is no run that has trained a backbone ({error})"
        ) from error
    start_from(backbone, run, "backbone")
    return backbone.eval()
