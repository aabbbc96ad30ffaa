"""How well a detector does in the agent: exported, put into a pack, and run by the agent's own code."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from calibration.detection import Finding, sum_up
from calibration.detection import judge as compare
from calibration.faces import Detector, FaceFinder, read_image
from engines.pack import Pack
from trainer.common import packs
from trainer.data.wider import Marked
from trainer.detector.export import write_detector
from trainer.detector.network import TinySsd

__all__ = ["LEAST", "Finding", "judge"]

LEAST = 0.02
"""Least score that is looked at."""
_MOST = 64  # faces of a picture


def judge(
    network: TinySsd,
    base: Pack,
    root: Path,
    marked: Sequence[Marked],
    threshold: float = 0.5,
    advance: Callable[[int], None] = lambda _: None,
) -> Finding:
    """What the agent finds in pictures with this detector, against what is marked there.

    Args:
        network: on the processor.
        base: the pack whose other parts it is put beside.
        root: the folder that the paths start from.
        marked: the pictures.
        threshold: the score that becomes 0.5, as for ``trainer.detector.export.detector_graph``.
        advance: told of the progress.

    Raises:
        ExportError: the network cannot be exported.
        ImageError: a picture cannot be read.
    """
    with TemporaryDirectory() as folder:
        made = packs.pack_with(
            Path(folder) / "pack",
            "judged",
            base,
            "detector",
            lambda file: write_detector(file, network, threshold, "", "", {}),
        )
        finder = FaceFinder(made.path, finding=Detector(threshold=LEAST, max_faces=_MOST))
        judged = []
        for each in marked:
            faces = finder.find(read_image(root / each.path))
            boxes = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
            scores = np.array([face.score for face in faces], np.float32)
            judged.append(compare(each.boxes, each.ignored, boxes, scores))
            advance(1)
        finder.close()
    return sum_up(judged)
