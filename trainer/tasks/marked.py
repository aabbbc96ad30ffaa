"""Pictures with faces for the task ``detector``: which are learnt from, and which judge."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from calibration.lfw import calibrates
from trainer.common.distributed import World, wait
from trainer.common.job import Advance
from trainer.common.settings import ConfigError, Count, Share, Whole
from trainer.data.found import find_faces, pictures_below
from trainer.data.split import by_share
from trainer.data.wider import Marked, read_boxes

_FOLDERS = 10  # from so many on, they are what is split: people, or WIDER FACE's events


class MarkedSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which pictures, and who says where the faces are.

    Attributes:
        root: folder of pictures, at any depth.
        boxes: list of boxes as WIDER FACE writes it; empty: the pack's detector finds the faces.
        sure: score from which what it finds is a face; what it merely suspects is neither to be found nor to be missed.
        held_out: share that nothing is learnt from; of folders (people, in LFW) where there are ten or more, else of
            pictures. One half of it sets the threshold, the other is reported on.
        judged: pictures of an evaluation during the training; at the end it is all that are held out.
        damaged: pictures that may be unreadable.
        pack: whose detector finds the faces, and whose other parts an exported pack has.
        keep: folder for the boxes that were found, not for pictures; empty: faces are found anew each time.
    """

    root: str = "../shared/data/lfw"
    boxes: str = ""
    sure: Share = 0.5
    held_out: Share = 0.1
    judged: Count = 200
    damaged: Whole = 100
    pack: str = "~/.local/share/cabinsense/packs/default"
    keep: str = "runs/boxes"


@dataclass(frozen=True)
class Pictures:
    """The pictures of a run.

    Attributes:
        root: the folder that all paths start from.
        training: learnt from.
        choosing: held out, to choose a threshold by.
        reporting: held out, to report on.
        digest: of all paths, boxes, and who is on which side.
        left_out: which pictures could not be used; empty when all could.
    """

    root: Path
    training: list[Marked]
    choosing: list[Marked]
    reporting: list[Marked]
    digest: str
    left_out: str

    @property
    def held_out(self) -> list[Marked]:
        """All that nothing is learnt from."""
        return self.choosing + self.reporting

    def facts(self) -> list[tuple[str, str]]:
        """What the plan says of them."""

        def told(marked: Sequence[Marked]) -> str:
            faces = sum(int((~each.ignored).sum()) for each in marked)
            return f"{len(marked):,} with {faces:,} faces"

        return [
            ("data", f"SHA-256 {self.digest[:16]}…"),
            ("pictures to learn from", told(self.training)),
            ("pictures held out", f"{told(self.choosing)} to choose by, {told(self.reporting)} to report on"),
            *([("left out", self.left_out)] if self.left_out else []),
        ]


def find(settings: MarkedSettings, world: World, advance: Advance) -> Pictures:
    """Find, mark and split the pictures.

    Args:
        settings: which.
        world: the first process finds faces, the others wait for what it keeps.
        advance: told of the progress.

    Raises:
        DataError: there are no pictures, or too many cannot be read.
        ConfigError: too few are left on one side.
        PackError: the pack whose detector finds the faces is missing.
    """
    root = Path(settings.root).expanduser()
    left_out = ""
    if settings.boxes:
        marked = read_boxes(Path(settings.boxes).expanduser())
    else:
        names = pictures_below(root)
        if not world.first:
            wait(world)
        marked, left_out = find_faces(
            root,
            names,
            Path(settings.pack).expanduser(),
            settings.sure,
            keep=Path(settings.keep).expanduser() if settings.keep else None,
            limit=settings.damaged,
            advance=advance,
        )
        if world.first:
            wait(world)
    training, choosing, reporting = split(marked, settings.held_out)
    return Pictures(root, training, choosing, reporting, _digest(training, choosing, reporting), left_out)


def split(marked: Sequence[Marked], share: float) -> tuple[list[Marked], list[Marked], list[Marked]]:
    """Who is learnt from, who chooses and who is reported on; nothing of one group on two sides.

    Raises:
        ConfigError: a side is empty, or shows no face.
    """
    folders = {each.path.partition("/")[0] for each in marked if "/" in each.path}
    whole = len(folders) < _FOLDERS

    def group(each: Marked) -> str:
        return each.path if whole else each.path.partition("/")[0]

    held = set(by_share(map(group, marked), share).held_out)
    sides: tuple[list[Marked], list[Marked], list[Marked]] = ([], [], [])
    for each in marked:
        name = group(each)
        sides[0 if name not in held else 1 if calibrates(name) else 2].append(each)
    for what, side in zip(("learnt from", "chosen by", "reported on"), sides, strict=True):
        if all(each.ignored.all() for each in side):
            raise ConfigError(
                f"no face is left to be {what}; give more pictures, or another pictures.held_out than {share:g}"
            )
    return sides


def _digest(*sides: Sequence[Marked]) -> str:
    digest = hashlib.sha256()
    for number, side in enumerate(sides):
        for each in side:
            digest.update(f"{number} {each.path}\n".encode("utf-8", "surrogateescape"))
            digest.update(each.boxes.tobytes() + each.ignored.tobytes())
    return digest.hexdigest()
