"""A run that makes a norm bank: faces, norms for each condition, the classifier. It goes on where it was cut off."""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from agent.adaptation.bank import Bank, encode_bank, read_bank
from agent.adaptation.chip_filter import adaptable
from agent.adaptation.types import Norms
from agent.config import Config
from agent.networks import load as load_networks
from calibration.conditions import (
    CONDITIONS,
    load,
    make_bank,
    save,
    train_condition,
)
from calibration.lfw import Pair, person
from calibration.material import Progress, calibrating_faces, divide, fer_faces
from calibration.recipe import Recipe
from calibration.teacher import teach
from engines.errors import UserError
from engines.model import read_model
from engines.pack import Pack

BANK = "adaptation.npz"
RECIPE = "recipe.json"


class ConditionsError(UserError):
    """The norm bank cannot be made as asked for; the message names the folder and the remedy."""


def make(
    pack: Pack,
    expressions: Path,
    photographs: Path,
    pairs: Sequence[Pair],
    recipe: Recipe,
    out: Path,
    tell: Progress,
    start: Path | None = None,
) -> Bank:
    """Train the norms of each condition that folder ``out`` does not have yet, and leave the bank there.

    Args:
        pack: whose face network is taught.
        expressions: fer2013.npz; its training split is used.
        photographs: folder of photographs.
        pairs: of the photographs; only those of the first half of the folds are used. Empty: see ``divide``.
        recipe: how to train.
        out: folder of the run.
        tell: is told how it goes on.
        start: a bank for the same network, from whose conditions to go on; None: from the network as it is.

    Raises:
        UserError: something is missing or wrong; the message names it and the remedy.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConditionsError(f"--out {out}: {error.strerror}; name a folder that can be made") from error
    _claim(out, recipe, pack, start)
    model = read_model(pack.face)
    begun = read_bank(start, model).norms if start else {}
    chips, labels, people = faces(pack, expressions, photographs, pairs, recipe, tell)
    template = np.array(pack.manifest.face.template, np.float32)
    teacher = teach(model, chips, labels, people, template, recipe.threads, tell)
    norms = {}
    for condition, kinds in CONDITIONS.items():
        done = out / f"{condition}.npz"
        if not done.is_file():
            save(done, train_condition(model, teacher, kinds, recipe, tell, begun.get(condition)))
        norms[condition] = _trained(done, model)
    bank = make_bank(model, teacher, norms, recipe, tell)
    (out / BANK).write_bytes(encode_bank(bank))
    return bank


def _claim(out: Path, recipe: Recipe, pack: Pack, start: Path | None = None) -> None:
    """Write down by what a folder's conditions are trained; raises ConditionsError if it was something else."""
    told = {"pack": pack.manifest.digest, "recipe": asdict(recipe)}
    if start:
        try:
            told["start"] = hashlib.sha256(start.read_bytes()).hexdigest()
        except OSError as error:
            raise ConditionsError(f"--start {start}: {error.strerror}; name a norm bank") from error
    wanted = msgspec.json.format(msgspec.json.encode(told))
    written = out / RECIPE
    done = [f"{condition}.npz" for condition in CONDITIONS if (out / f"{condition}.npz").is_file()]
    if done and (not written.is_file() or written.read_bytes() != wanted):
        raise ConditionsError(
            f"{out}: {', '.join(done)} were trained by another recipe, from another start or for another pack; name "
            "another folder, or delete them"
        )
    written.write_bytes(wanted)


def _trained(file: Path, model: onnx.ModelProto) -> Norms:
    """The norms of a condition that is done; raises ConditionsError if the file holds none of this network."""
    try:
        norms = load(file)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        norms = {}
    sizes = {name: value.shape for name, value in adaptable(model).items()}
    if {name: value.shape for name, value in norms.items()} != sizes:
        raise ConditionsError(f"{file}: not the norms of a condition of this network; delete it")
    return norms


def faces(
    pack: Pack, expressions: Path, photographs: Path, pairs: Sequence[Pair], recipe: Recipe, tell: Progress
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Faces in good light to learn on: chips, expressions and people as ``Teacher`` has them.

    First those of FER2013, whose people are not known; then photographs, whose expressions are not known.

    Raises:
        UserError: something is missing or wrong.
    """
    rng = np.random.default_rng(recipe.seed)
    told, known = fer_faces(expressions, "train", recipe.images, recipe.seed)
    division = divide(photographs, pairs)
    networks = load_networks(pack, Config())
    try:
        found = calibrating_faces(division, Config(), networks, recipe.faces, recipe.seed, tell)
    finally:
        networks.close()
    drawn = rng.permutation(len(found.chips))[: recipe.faces]
    _, whose = np.unique([person(photo) for photo in found.photos], return_inverse=True)
    if len(set(whose[drawn].tolist())) == 1:
        raise ConditionsError(
            f"{photographs}: all photographs that may be used show {person(found.photos[0])}, and nobody a stranger; "
            "name a folder with folders of more people"
        )
    unknown = np.full(len(drawn), -1, np.int64), np.full(len(known), -1, np.int64)
    labels, people = np.concatenate([known, unknown[0]]), np.concatenate([unknown[1], whose[drawn]])
    chips = np.concatenate([_of_side(told.chips, pack.manifest.face.side), found.chips[drawn]])
    return chips, labels, people


def _of_side(chips: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Chips as a network of another side sees them: uint8 BGR [n, side, side, 3]."""
    if chips.shape[1] == side:
        return chips
    shrunk = [cv2.resize(chip, (side, side), interpolation=cv2.INTER_AREA) for chip in chips]
    return np.stack(shrunk).astype(np.uint8, copy=False)
