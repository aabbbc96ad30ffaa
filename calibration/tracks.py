"""Strangers named, and drivers recognised, by track: what the vote of ``agent.perception.vote`` makes of many looks.

A track is made of one photograph: nine frames in which it is moved, turned and scaled a little, as a head moves, and in
which light and noise change. Its looks are far more alike than those of a drive: the vote can mend less than it would
there, and a drive has more looks, more chances to err. The sample clip is a real drive, but a single one.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agent.capture import VideoFile
from agent.config import Config, Identity, TemplateMethod
from agent.gallery.matcher import match
from agent.gallery.templates import templates
from agent.gallery.types import Snapshot
from agent.images import read_image
from agent.perception.chain import Chain, FaceReader, Networks
from agent.perception.types import Float32, Frame, Image, Match
from agent.perception.vote import IdentityVote
from calibration.halves import SPLITS, Half
from calibration.lfw import central
from calibration.openset import Bools, Gallery, Ints, decide, enrol, interval

FRAMES = 9
"""Frames of a track: as many as the vote looks back by default."""
_SHIFT = 0.02  # of the image's width: a fifth of the distance between the eyes
_SCALE = 0.05
_TURN = 5.0  # degrees
_LIGHT = 0.15
_NOISE = 3.0  # grey levels
_RATE = 30.0  # frames a second of a video that does not say
_SEED = 2007  # of all draws: any number, but always the same one
_ROUNDS = 1000
_CAR = 10  # people enrolled in a car that many use
_CARS = 50
_WATCHED = 5  # galleries that the clip is shown to: it is one man, and takes as long each time


class TrackReport(Struct, frozen=True, kw_only=True):
    """What a threshold does to tracks. Rates are shares, 0 to 1.

    Attributes:
        far: the share of strangers' searches that may name somebody, for which the threshold was chosen.
        threshold: chosen on the other half of the people, in galleries like these.
        people: how many are enrolled in each gallery.
        galleries: how many galleries there are.
        strangers: tracks of strangers, in all galleries together.
        named: share of them in which somebody was named at any moment.
        named_interval: 95 % bootstrap interval of it over people; where nobody is ever named, up to 3 in so many
            people (the rule of three).
        known: tracks of enrolled people, from a photograph that is not enrolled.
        recognised: share of them in which the right person was named at any moment, and no other.
        misnamed: share of them in which another was named at any moment.
        clip: tracks of the sample clip, whose man is not enrolled, in some galleries; 0 where the clip is not there.
        clip_named: how many of them were named.
    """

    far: float
    threshold: float
    people: int
    galleries: int
    strangers: int
    named: float
    named_interval: tuple[float, float]
    known: int
    recognised: float
    misnamed: float
    clip: int
    clip_named: int


@dataclass(frozen=True)
class Track:
    """One face over some frames.

    Attributes:
        embeddings: float32 [m, dim], of the looks that the quality gate lets pass.
        good: bool [frames], which looks these are; a frame without a face is left out.
    """

    embeddings: Float32
    good: Bools


def jittered(image: Image, frames: int, seed: int) -> Iterator[Image]:
    """The image as it is, then variants of it: moved, turned, scaled, lit and with the noise of a sensor."""
    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    yield image
    for _ in range(frames - 1):
        middle = (width - 1) / 2, (height - 1) / 2
        affine = cv2.getRotationMatrix2D(middle, rng.uniform(-_TURN, _TURN), 1 + rng.uniform(-_SCALE, _SCALE))
        affine[:, 2] += rng.uniform(-_SHIFT, _SHIFT, 2) * width
        moved = cv2.warpAffine(image, affine, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        lit = moved * np.float32(1 + rng.uniform(-_LIGHT, _LIGHT))
        lit += rng.normal(0, _NOISE, lit.shape).astype(np.float32)
        yield np.clip(np.rint(lit), 0, 255).astype(np.uint8)


def follow(reader: FaceReader, root: Path, photos: Iterable[str]) -> Iterator[Track]:
    """A track of the subject of each photograph.

    Raises:
        ImageError: a photograph cannot be read.
    """
    for number, photo in enumerate(photos):
        yield _track(reader, jittered(read_image(root / photo), FRAMES, number))


def _track(reader: FaceReader, frames: Iterable[Image]) -> Track:
    looks = [reader.look(frame, central(frame, faces)) for frame in frames if (faces := reader.find(frame))]
    dim = reader.networks.manifest.face.dim
    embeddings = [look.embedding for look in looks if look.quality.good]
    return Track(
        np.array(embeddings, np.float32).reshape(-1, dim),
        np.array([look.quality.good for look in looks], np.bool_),
    )


def named(track: Track, gallery: Gallery, threshold: float, settings: Identity) -> set[int]:
    """Everybody in the gallery for whom the face was taken, at any moment of the track, as indices.

    Args:
        track: of one face.
        gallery: who is enrolled.
        threshold: least cosine of a known person.
        settings: the vote's, and the margin.
    """
    vote, found = IdentityVote(settings), set()
    best, score = decide(gallery.scores(track.embeddings), settings.margin)
    looks = zip(best.tolist(), score.tolist(), strict=True)
    for good in track.good:
        if good:
            person, reached = next(looks)
            vote.add(Match(str(person) if reached >= threshold else None, reached, threshold))
        else:
            vote.add_poor()
        if vote.state == "confirmed" and vote.match and vote.match.person:
            found.add(int(vote.match.person))
    return found


def galleries(people: int) -> tuple[tuple[int, int], ...]:
    """The sizes of galleries that tracks are shown to, and how many of each: the large one, and those of a car."""
    return ((people, SPLITS), (_CAR, _CARS)) if people > _CAR else ((people, SPLITS),)


def photographs(half: Half) -> Ints:
    """One look at each person of a half, drawn with a fixed seed, as indices: what the tracks are made of."""
    rng = np.random.default_rng(_SEED)
    return np.array([rng.choice(half.looks.of_person[who]) for who in half.people], np.int64)


def report(
    half: Half,
    chosen: Ints,
    tracks: Sequence[Track],
    method: TemplateMethod,
    far: float,
    threshold: float,
    settings: Identity,
    clip: tuple[int, int],
) -> TrackReport:
    """The figures.

    Args:
        half: the people, and the splits into enrolled ones and strangers.
        chosen: what ``photographs`` gave.
        tracks: of these photographs.
        method: of making templates.
        far: what the threshold was chosen for.
        threshold: least cosine of a known person.
        settings: the vote's, and the margin.
        clip: tracks of the sample clip, and how many were named.
    """
    strange = np.zeros((len(half.splits), len(tracks)))
    is_stranger = np.ones(strange.shape, np.bool_)
    known, right, wrong = 0, 0, 0
    for number, split in enumerate(half.splits):
        gallery = enrol(half.looks, split, partial(templates, method=method))
        place = {int(who): index for index, who in enumerate(split.people)}
        for column, (look, track) in enumerate(zip(chosen.tolist(), tracks, strict=True)):
            own = place.get(int(half.looks.person[look]))
            if own is not None:
                is_stranger[number, column] = False
                if look in split.enrolled[own]:
                    continue
            found = named(track, gallery, threshold, settings)
            if own is None:
                strange[number, column] = bool(found)
            else:
                known, right, wrong = known + 1, right + (found == {own}), wrong + bool(found - {own})
    return TrackReport(
        far=far,
        threshold=threshold,
        people=len(half.splits[0].people),
        galleries=len(half.splits),
        strangers=int(is_stranger.sum()),
        named=float(strange[is_stranger].mean()),
        named_interval=_named_interval(strange, is_stranger),
        known=known,
        recognised=right / max(1, known),
        misnamed=wrong / max(1, known),
        clip=clip[0],
        clip_named=clip[1],
    )


def _named_interval(named_at: NDArray[np.float64], is_stranger: Bools) -> tuple[float, float]:
    people = int(is_stranger.any(axis=0).sum())
    if not named_at.any():
        return 0.0, min(1.0, 3 / people)
    rng = np.random.default_rng(_SEED)
    drawn = rng.integers(0, named_at.shape[1], (_ROUNDS, named_at.shape[1]))
    times, tracks = named_at.sum(axis=0), is_stranger.sum(axis=0)
    return interval(times[drawn].sum(axis=1) / tracks[drawn].sum(axis=1))


def watch_clip(
    networks: Networks, config: Config, file: Path, half: Half, method: TemplateMethod, threshold: float
) -> tuple[int, int]:
    """Show a clip whose people nobody has enrolled to the whole chain, once for each of some galleries.

    Returns:
        How many tracks there were in all, and how many of them were named at any moment.
    """
    total, taken = 0, 0
    for split in half.splits[:_WATCHED]:
        gallery = enrol(half.looks, split, partial(templates, method=method))
        sizes = np.diff([*gallery.first, len(gallery.templates)])
        owners = np.repeat(np.arange(len(split.people)), sizes)
        names = tuple(half.looks.names[who] for who in split.people)
        snapshot = Snapshot(names, gallery.templates, owners)
        ask = partial(match, snapshot=snapshot, threshold=threshold, margin=config.identity.margin)
        chain = Chain(networks, config, time.monotonic)
        states: dict[int, set[str]] = {}
        for frame in _frames(file):
            for face in chain.process(frame, ask).faces:
                states.setdefault(face.track, set()).add(face.state)
        total += len(states)
        taken += sum("confirmed" in seen for seen in states.values())
    return total, taken


def _frames(file: Path) -> Iterator[Frame]:
    """The frames of a video, stamped as if they came at its rate."""
    video = VideoFile(file)
    try:
        index = 0
        while (image := video.read()) is not None:
            seconds = index / (video.fps or _RATE)
            yield Frame("clip", index, seconds, seconds, image)
            index += 1
    finally:
        video.close()
