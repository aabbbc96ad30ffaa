"""A run that makes a norm bank, with progress on the terminal: faces, norms for each condition, the classifier."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agent.adaptation.bank import encode_bank
from agent.config import Config
from agent.networks import load
from calibration.fer2013 import read_split, to_chip
from calibration.lfw import read_pairs
from calibration.material import calibrating_faces, divide
from engines.model import read_model
from engines.pack import Pack, verify
from trainer.conditions import (
    Advance,
    ConditionsConfig,
    kept,
    make_bank,
    saved,
    teach,
    train_condition,
)
from trainer.config import read_settings
from trainer.run import bars


def run_conditions(config_path: Path | None, overrides: list[str], out: Path, export: Path | None) -> None:
    """Train the norms of each condition that folder ``out`` does not have yet; write the bank if asked.

    Raises:
        UserError: what a user can put right; the message says how.
    """
    config = read_settings(config_path, overrides, ConditionsConfig)
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    out.mkdir(parents=True, exist_ok=True)
    with Progress(*columns, console=console) as progress:
        advance = bars(progress)
        pack = verify(Path(config.pack).expanduser())
        model = read_model(pack.face)
        chips, labels = faces(pack, config, advance)
        teacher = teach(model, chips, labels, np.array(pack.manifest.face.template, np.float32))
        norms = {}
        for condition, kinds in config.conditions.items():
            done = out / f"{condition}.npz"
            if not done.is_file():
                trained, losses = train_condition(model, teacher, kinds, config, advance)
                saved(done, trained)
                tenth = max(1, len(losses) // 10)
                console.print(
                    f"{condition}: loss {np.mean(losses[:tenth]):.3f} at first, {np.mean(losses[-tenth:]):.3f} at last"
                )
            norms[condition] = kept(done)
        if export is not None:
            bank = make_bank(model, teacher, norms, config, advance)
            export.parent.mkdir(parents=True, exist_ok=True)
            export.write_bytes(encode_bank(bank))
            console.print(f"{export}: {', '.join(bank.conditions[1:])}")


def faces(
    pack: Pack, config: ConditionsConfig, advance: Advance
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Faces in good light to learn on, uint8 BGR [n, side, side, 3], with their expressions, int64 [n].

    First those of FER2013's training split; then photographs of people in the first half of the folds, whose
    expressions are not known (-1).

    Raises:
        Fer2013Error, LfwError, MaterialError, EngineError: something is missing or wrong.
    """
    rng = np.random.default_rng(config.seed)
    images, expressions = read_split(Path(config.data), "train")
    chosen = rng.permutation(len(images))[: config.images]
    known = np.stack([to_chip(images[index]) for index in chosen])
    division = divide(Path(config.photographs), read_pairs(Path(config.pairs)))
    networks = load(pack, Config())
    try:
        progress = _steps(advance)
        found = calibrating_faces(division, Config(), networks, config.faces, config.seed, progress).chips
    finally:
        networks.close()
    photographed = found[rng.permutation(len(found))[: config.faces]]
    labels = np.concatenate([expressions[chosen], np.full(len(photographed), -1, np.int64)])
    return np.concatenate([known, photographed]), labels


def _steps(advance: Advance) -> Callable[[str, int, int], None]:
    """Tell ``advance`` of single steps what is told as a count."""
    return lambda what, _done, total: advance(what, 1, total)
