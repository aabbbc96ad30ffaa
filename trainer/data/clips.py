"""Expressions in clips: FERV39K and DFEW as folders of frames with label files, and which frames of a clip are read.

FERV39K, as handed out (Wang et al. 2022)::

    2_ClipsforFaceCrop/SCENE/EXPRESSION/NUMBER/*.jpg
    4_setups/All_scenes/train_All.csv, test_All.csv      SCENE/EXPRESSION/NUMBER EXPRESSION, no head line

DFEW, as handed out (Jiang et al. 2020)::

    Clip/clip_224x224/NUMBER/*.jpg, Clip/clip_224x224_16f/NUMBER/*.jpg      NUMBER has five digits
    Clip/clip_224x224_avi/NUMBER.avi
    EmoLabel_DataSplit/train(single-labeled)/set_1.csv ... set_5.csv, and test(single-labeled)
                                  video_name,label after a head line of these words; 1 to 7 as in ``DFEW``, 0 for a
                                  clip on whose expression people did not agree: it is passed over

Both come under agreements and were not at hand: the layouts are those that published code reads. Any other set serves
with a file of lines ``CLIP LABEL``. A clip is a folder of pictures, or a video: the name as listed, or with ``.avi``,
``.mp4``, ``.mkv`` or ``.mov`` behind it. Labels become numbers in ``calibration.fer2013.LABELS``, the agent's order.

Frames are chosen as in Temporal Segment Networks (Wang et al. 2016): a clip is cut into equal stretches, and of each
one frame is taken, a random one in training, the middle one otherwise. Pooling over time is the network's affair.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.faces import SUFFIXES, Image, read_image
from calibration.fer2013 import LABELS
from trainer.data.reading import DataError, fit, rgb
from trainer.data.split import digest_of_files

DFEW = {
    str(number): name
    for number, name in enumerate(("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"), 1)
}
"""What DFEW's label numbers mean."""

VIDEOS = (".avi", ".mp4", ".mkv", ".mov")
"""How the names of videos end."""
_NOBODY_AGREED = "0"

_NAMES: dict[str, str] = {name: name for name in LABELS} | {
    "anger": "angry",
    "happiness": "happy",
    "sadness": "sad",
}
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Clip:
    """A folder of frames or a video, and the number of its expression in ``calibration.fer2013.LABELS``."""

    folder: Path
    label: int


class ClipFrames:
    """Some frames of each clip, as a source (see ``trainer.data.reading``); an item is [frames, side, side, 3].

    Attributes:
        clips: one an item.
        labels: int64 [n].
    """

    def __init__(
        self,
        clips: list[Clip],
        side: int,
        frames: int,
        *,
        seed: int | None = None,
        cut: Callable[[Image, int], Image] = fit,
    ) -> None:
        """Read frames when they are asked for.

        Args:
            clips: what to read.
            side: of the pictures to give.
            frames: of a clip; a shorter one repeats some.
            seed: draw a random frame of each stretch, another one in each epoch (``Shuffled`` with ``anew``). None
                takes the middle one.
            cut: makes a picture of the wanted side of a frame, both uint8 BGR; else its middle square is taken.
        """
        self.clips, self._side, self._frames, self._seed, self._cut = clips, side, frames, seed, cut
        self.labels: NDArray[np.int64] = np.array([clip.label for clip in clips], np.int64)

    def read(self, index: int) -> NDArray[np.uint8]:
        """The frames in the order of time: uint8 RGB [frames, side, side, 3].

        Raises:
            DataError: the folder is missing or holds no picture, or the video cannot be read.
            ImageError: a frame cannot be read.
        """
        folder = self.clips[index % len(self.clips)].folder
        draw = None if self._seed is None else np.random.default_rng((self._seed, index))
        video = video_of(folder)
        if video is None:
            files = frames_of(folder)
            frames = [read_image(files[place]) for place in stretches(len(files), self._frames, draw)]
        else:
            frames = read_video(video, stretches(count_frames(video), self._frames, draw))
        return np.stack([rgb(self._cut(frame, self._side)) for frame in frames])

    def name(self, index: int) -> str:
        """The clip's folder."""
        return str(self.clips[index % len(self.clips)].folder)

    def digest(self, root: Path) -> str:
        """What these clips are, by the frames below ``root``.

        Raises:
            DataError: a clip's folder is missing, or not below the root.
        """
        try:
            names = [
                file.relative_to(root).as_posix() for clip in self.clips for file in files_of(clip.folder)
            ]
        except ValueError as error:
            raise DataError(f"a clip does not lie below {root}: {error}") from error
        return digest_of_files(root, names)


def stretches(length: int, count: int, draw: np.random.Generator | None) -> list[int]:
    """One place of each of ``count`` equal stretches of 0 to ``length`` - 1, rising: the middle, or a random one.

    Args:
        length: frames there are, at least 1.
        count: frames wanted.
        draw: where the places come from; None takes the middle of each stretch.
    """
    within = np.full(count, 0.5) if draw is None else draw.random(count)
    places = ((np.arange(count) + within) * length / count).astype(np.int64)
    chosen: list[int] = np.minimum(places, length - 1).tolist()
    return chosen


def frames_of(folder: Path) -> list[Path]:
    """The pictures of a clip in the order of time: by the numbers in their names, so that 10 comes after 9.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    try:
        files = [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES]
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}") from error
    if not files:
        raise DataError(f"{folder}: no frames here")
    return sorted(files, key=_in_time)


def video_of(folder: Path) -> Path | None:
    """The video that a clip is; None where it is a folder, or nothing."""
    if folder.is_dir():
        return None
    names = [folder.name, *(f"{folder.name}{suffix}" for suffix in VIDEOS)]
    found = (folder.with_name(name) for name in names if name.lower().endswith(VIDEOS))
    return next((file for file in found if file.is_file()), None)


def files_of(folder: Path) -> list[Path]:
    """The files that a clip is made of.

    Raises:
        DataError: there is none.
    """
    video = video_of(folder)
    return frames_of(folder) if video is None else [video]


def count_frames(video: Path) -> int:
    """How many frames can be read; what the file says of itself is not to be relied on.

    Raises:
        DataError: not one.
    """
    capture = cv2.VideoCapture(str(video))
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    if not count:
        raise DataError(f"{video}: no frame of this video can be read")
    return count


def read_video(video: Path, places: Sequence[int]) -> list[Image]:
    """Frames of a video, uint8 BGR [height, width, 3].

    Args:
        video: the file.
        places: numbers of the frames from 0, rising; some may be alike.

    Raises:
        DataError: the video is shorter.
    """
    wanted = set(places)
    found: dict[int, Image] = {}
    capture = cv2.VideoCapture(str(video))
    for place in range(max(places) + 1):
        if not capture.grab():
            break
        if place in wanted:
            whole, frame = capture.retrieve()
            if not whole:
                break
            found[place] = np.asarray(frame, np.uint8)
    capture.release()
    if len(found) < len(wanted):
        raise DataError(f"{video}: frame {min(wanted - set(found))} cannot be read")
    return [found[place] for place in places]


def _in_time(file: Path) -> list[str | int]:
    # Words and numbers take turns, so that like is compared with like.
    parts = _DIGITS.split(file.name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def ferv39k(root: Path, split: str) -> list[Clip]:
    """The clips of FERV39K's split ``train`` or ``test`` over all scenes.

    Raises:
        DataError: the label file is missing or is not what it should be.
    """
    return read_clips(root / "4_setups" / "All_scenes" / f"{split}_All.csv", root / "2_ClipsforFaceCrop", {})


def dfew(root: Path, fold: int, split: str, frames: str = "clip_224x224_16f") -> list[Clip]:
    """The clips of one of DFEW's five folds.

    Args:
        root: folder of ``Clip`` and ``EmoLabel_DataSplit``.
        fold: 1 to 5.
        split: ``train`` or ``test``.
        frames: the folder in ``Clip``.

    Raises:
        DataError: the label file is missing or is not what it should be.
    """
    listed = root / "EmoLabel_DataSplit" / f"{split}(single-labeled)" / f"set_{fold}.csv"
    return read_clips(listed, root / "Clip" / frames, DFEW, digits=5)


def read_clips(path: Path, root: Path, numbers: Mapping[str, str], digits: int = 0) -> list[Clip]:
    """The clips of a file with lines of a folder and a label, between them a comma, blanks or a tab.

    Args:
        path: the file; a first line ``video_name,label`` is passed over.
        root: the folder that the clips' paths start from.
        numbers: what the file's label numbers mean; labels may also be the expressions' names.
        digits: a clip's number is filled up with zeros to so many.

    Raises:
        DataError: the file cannot be read, or a line is not what it should be.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; name the folder of the data set as it was handed out"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file ({error})") from error
    clips: list[Clip] = []
    for number, line in enumerate(lines, 1):
        fields = re.split(r"[,\s]+", line.strip())
        if fields == [""] or (number == 1 and fields == ["video_name", "label"]):
            continue
        if numbers and fields[-1] == _NOBODY_AGREED:
            continue
        expression = _NAMES.get(numbers.get(fields[-1], fields[-1]).lower())
        folder = Path(fields[0].zfill(digits))
        if len(fields) != 2 or expression is None or folder.is_absolute() or ".." in folder.parts:
            raise DataError(
                f"{path}, line {number}: {line[:60]!r}; expected a clip's folder and one of {', '.join(LABELS)}"
                + (f", or {min(numbers)} to {max(numbers)}" if numbers else "")
            )
        clips.append(Clip(root / folder, LABELS.index(expression)))
    if not clips:
        raise DataError(f"{path}: no clip is listed here")
    return clips
