"""The settings of the task ``emotion``."""

from pathlib import Path

import msgspec

from trainer.augment import Augmentation
from trainer.branch import BranchSettings
from trainer.common.settings import load_settings


class EmotionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that decides what ``python -m trainer emotion`` makes. The defaults are the committed recipe."""

    data: str = "../shared/data/fer2013.npz"  # FER2013 as .npz, see calibration.fer2013.read_split
    trunk: str = "~/.local/share/cabinsense/packs/default"  # a pack, or a face network with a map `features`
    cache: str = "runs/features"  # folder of the trunk's feature maps; 1.06 GB for each version
    seed: int = 1
    threads: int = 2  # of PyTorch and ONNX Runtime; on a machine that is busy, 1 is faster than 2
    bfloat16: bool = True  # 2.5 times faster on processors with AVX512-BF16, slower on others
    versions: int = 10  # random variants kept of each training image
    limit: int = 0  # use only so many images of each split, spread over it; 0: all (for trials)
    epochs: int = 22
    batch: int = 128
    learning_rate: float = 2e-3  # peak of AdamW (Loshchilov & Hutter 2019); warm-up, then a cosine to 0
    weight_decay: float = 0.05  # on convolution and linear weights only
    label_smoothing: float = 0.1  # Szegedy et al. 2016
    mixup: float = 0.2  # Beta parameter of mixed feature maps (Verma et al. 2019); 0 turns it off
    map_shift: int = 1  # a feature map is moved by up to so many cells (8 chip pixels each), edges repeated
    map_erase: float = 0.3  # probability that a square of 3 to 7 cells of a feature map is set to zero
    ema: float = 0.998  # decay a step of the averaged weights, which are the ones evaluated and exported
    branch: BranchSettings = BranchSettings()
    augment: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        for name in ("threads", "versions", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.limit < 0:
            raise ValueError("limit must not be negative")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError("label_smoothing must be in [0, 1)")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError("ema must be in [0, 1)")
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
