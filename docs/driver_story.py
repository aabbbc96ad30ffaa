"""Draw what the driver policy says of one minute: ``python docs/driver_story.py > docs/driver.svg``.

The policy is the agent's own; what the camera sees is made up.
"""

import sys
from collections.abc import Iterator
from itertools import groupby

import numpy as np

from agent.config import Driver as Settings
from agent.driver import Watch, advance
from agent.perception.types import Detection, Face, Pose, Quality, Reading, Stamp

FPS = 20
STORY = (
    ("road", 4.0), ("away", 1.2), ("road", 4.0), ("away", 12.0), ("road", 3.0),
    ("away", 2.3), ("road", 1.0), ("away", 2.3), ("road", 1.0), ("away", 2.3), ("road", 1.0), ("away", 2.3),
    ("road", 1.0), ("away", 2.3), ("road", 4.5), ("away", 2.0), ("hidden", 1.5), ("away", 2.5), ("road", 3.0),
    ("hidden", 4.0), ("road", 3.0),
)  # fmt: skip
"""What is to be seen, and for how many seconds."""
# Five landmarks in pixels: of a face that looks into the camera, and of one that is turned by 45 degrees.
LANDMARKS = {
    "road": ((282, 199), (358, 199), (320, 244), (286, 279), (354, 279)),
    "away": ((282, 199), (335, 199), (334, 244), (287, 279), (334, 279)),
}
COLOURS = {"road": "#3a7", "away": "#e93", "hidden": "#999", "attentive": "#3a7", "distracted": "#e93",
           "uncertain": "#999"}  # fmt: skip
LEFT, SCALE, BOTTOM = 100, 13, 190


def reading(index: int, shown: str) -> Reading:
    """A frame in which this is to be seen; a face that is hidden is followed, but not found."""
    points = np.array(LANDMARKS.get(shown, LANDMARKS["road"]), np.float32)
    quality = Quality(76.0, 200.0, 120.0, 40.0, Pose(0.0, 0.0, 0.0))
    detection = Detection((260.0, 170.0, 380.0, 310.0), 0.9, points)
    face = Face(1, detection, shown == "hidden", quality, "seen", None, None)
    return Reading(Stamp("cabin", index, index / FPS, 0.0, size=(640, 480)), (face,))


def told() -> Iterator[tuple[str, str, int, str]]:
    """Frame by frame what is to be seen, attention, warning and its reason."""
    watch: Watch | None = None
    frames = [shown for shown, seconds in STORY for _ in range(round(seconds * FPS))]
    for index, shown in enumerate(frames):
        watch = advance(watch, reading(index, shown), Settings())
        yield shown, watch.driver.attention, watch.driver.warning, watch.driver.reason or ""


def bars(values: list[str], top: int) -> Iterator[str]:
    """A row of bars, one for each stretch of the same value."""
    at = 0
    for value, stretch in groupby(values):
        frames = len(list(stretch))
        x, width = LEFT + at / FPS * SCALE, frames / FPS * SCALE
        yield f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="22" fill="{COLOURS[value]}"/>'
        if width > 9 * len(value):
            yield f'<text x="{x + width / 2:.1f}" y="{top + 15}" text-anchor="middle" fill="#fff">{value}</text>'
        at += frames


def steps(levels: list[tuple[int, str]]) -> Iterator[str]:
    """The warnings as steps; those for repeated looks in another colour."""
    at = 0
    for (level, reason), stretch in groupby(levels):
        frames = len(list(stretch))
        if level:
            x, width, height = LEFT + at / FPS * SCALE, frames / FPS * SCALE, 22 * level
            colour = "#c22" if reason == "long_look" else "#84c"
            yield (
                f'<rect x="{x:.1f}" y="{BOTTOM - height}" width="{width:.1f}" height="{height}" fill="{colour}"/>'
            )
            yield f'<text x="{x + 4:.1f}" y="{BOTTOM - height + 15}" fill="#fff">{level}</text>'
        at += frames


def drawing() -> str:
    """The whole picture."""
    shown, attention, warnings, reasons = (list(each) for each in zip(*told(), strict=True))
    seconds = len(shown) / FPS
    width = LEFT + seconds * SCALE + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} 250" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{width:.0f}" height="250" fill="#fff"/>',
        *(f'<text x="8" y="{y}">{name}</text>'
          for y, name in ((35, "looks at"), (75, "attention"), (180, "warning"))),
        *bars(shown, 20),
        *bars(attention, 60),
        *steps(list(zip(warnings, reasons, strict=True))),
        f'<path d="M{LEFT} {BOTTOM}H{LEFT + seconds * SCALE:.1f}" stroke="#000"/>',
        *(f'<text x="{LEFT + s * SCALE}" y="{BOTTOM + 16}" text-anchor="middle">{s}</text>'
          for s in range(0, round(seconds) + 1, 5)),
        f'<text x="{LEFT}" y="{BOTTOM + 40}">seconds. Red: a long look away. Violet: repeated looks. '
        "Grey: the face is hidden.</text>",
        "</svg>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(drawing())
