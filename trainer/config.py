"""The settings of the task ``emotion``."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from trainer.augment import Augmentation
from trainer.branch import BranchSettings, Pooling
from trainer.common.settings import Count, Whole, load_settings


class ClipSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Clips in place of images; ``data`` is then the folder of the data set.

    Attributes:
        kind: ``ferv39k`` and ``dfew`` as they are handed out, ``lists`` for any other set; empty: images.
        fold: of DFEW's five.
        folder: below ``Clip`` in DFEW; one with ``_avi`` holds videos.
        train: label file of ``lists`` below ``data``: lines ``FOLDER EXPRESSION``, see ``trainer.data.clips``.
        test: label file of ``lists`` for the test.
        held_out: share of the training clips that validate; neither set has clips for that.
        kept: frames of a clip whose feature maps are made, one of each of so many equal stretches: the middle one to
            evaluate, a random one in each variant to train.
        frames: of those, chosen in the same way for each step.
        pooling: over the frames; what is not ``mean`` cannot be exported.
        align: find and align the face in each frame as the agent does, where one is found; else take the frame's
            middle square. The detector is the trunk's pack's.
        damaged: clips that may be unreadable.
    """

    kind: Literal["", "ferv39k", "dfew", "lists"] = ""
    fold: Annotated[int, Meta(ge=1, le=5)] = 1
    folder: str = "clip_224x224_16f"
    train: str = "train.csv"
    test: str = "test.csv"
    held_out: Annotated[float, Meta(gt=0, lt=1)] = 0.1
    kept: Count = 16
    frames: Count = 8
    pooling: Pooling = "mean"
    align: bool = True
    damaged: Whole = 100


class EmotionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that decides what ``python -m trainer emotion`` makes. The defaults are the committed recipe."""

    data: str = "../shared/data/fer2013.npz"  # FER2013, .npz or Kaggle's .csv; or a folder of clips
    clips: ClipSettings = ClipSettings()
    trunk: str = "~/.local/share/cabinsense/packs/default"  # a pack, or a face network with a map `features`
    cache: str = "runs/features"  # folder of the trunk's feature maps; 1.06 GB for each version
    seed: int = 1
    threads: int = 2  # of PyTorch and ONNX Runtime; on a machine that is busy, 1 is faster than 2
    bfloat16: bool = True  # 2.5 times faster on processors with AVX512-BF16, slower on others
    versions: int = 10  # random variants kept of each training image
    limit: int = 0  # use only so many images of each split, spread over it; 0: all (for trials)
    epochs: int = 36
    batch: int = 128
    learning_rate: float = 2e-3  # peak of AdamW (Loshchilov & Hutter 2019); warm-up, then a cosine to 0
    weight_decay: float = 0.05  # on convolution and linear weights only
    label_smoothing: float = 0.05  # Szegedy et al. 2016
    mixup: float = 0.2  # Beta parameter of mixed feature maps (Verma et al. 2019); 0 turns it off
    map_shift: int = 1  # a feature map is moved by up to so many cells (8 chip pixels each), edges repeated
    map_erase: float = 0.3  # probability that a square of 3 to 7 cells of a feature map is set to zero
    ema: float = 0.998  # decay a step of the averaged weights, which are the ones evaluated and exported
    start: str = ""  # run whose branch to go on from, of the same shape; empty: begin with random weights
    teachers: tuple[str, ...] = ()  # runs, or branches exported as .onnx, that answer the training images
    teacher_views: int = 4  # variants of an image over which a teacher's answer is averaged
    teacher_share: float = 0.6  # of the target that is their mean answer; the rest is the smoothed label
    branch: BranchSettings = BranchSettings()
    augment: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        for name in ("threads", "versions", "epochs", "batch", "teacher_views"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.limit < 0:
            raise ValueError("limit must not be negative")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError("label_smoothing must be in [0, 1)")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError("ema must be in [0, 1)")
        if not 0.0 <= self.teacher_share <= 1.0:
            raise ValueError("teacher_share must be in [0, 1]")
        if self.learning_rate <= 0.0:
            raise ValueError("learning_rate must be above 0")
        if self.mixup < 0.0:
            raise ValueError("mixup must not be negative")
        if not 0 <= self.map_shift <= 4:
            raise ValueError("map_shift must be in 0 to 4")
        if not 0.0 <= self.map_erase <= 1.0:
            raise ValueError("map_erase must be in [0, 1]")


def load_config(path: Path | None, overrides: list[str]) -> EmotionConfig:
    """Defaults, then the TOML file, then the overrides (``epochs=5``, ``augment.flip=0``).

    Raises:
        ConfigError: the file cannot be read, or a key or value does not fit.
    """
    return load_settings(EmotionConfig, path, overrides)
