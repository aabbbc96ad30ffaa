"""The faces of photographs, read, found and aligned as the agent does it: for whoever trains networks on them."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec import UNSET

from agent import networks
from agent.config import Config, Detector, Engine
from agent.images import SUFFIXES, ImageError, decode_image, read_image
from agent.perception.align import align, warp
from agent.perception.chain import FaceReader
from agent.perception.landmarks import square
from agent.perception.types import Detection, Float32, Image
from calibration.lfw import central
from engines.pack import verify

__all__ = [
    "SUFFIXES",
    "Detection",
    "Detector",
    "FaceFinder",
    "Image",
    "ImageError",
    "decode_image",
    "read_image",
    "scaled",
    "square",
    "warp",
]


class FaceFinder:
    """A pack's detector, and its way to align a face.

    Attributes:
        digest: of all that decides how a face is cut: detector, landmark network and template, as 64 hex digits.
    """

    def __init__(self, pack: Path, threads: int = 1, finding: Detector | None = None) -> None:
        """Load the pack.

        Args:
            pack: its folder.
            threads: of the detector; more than one does not outlive a fork of the process.
            finding: how faces are found; None is as the agent does it unless told otherwise.

        Raises:
            PackError: the pack is missing or damaged.
            EngineError: a model does not load.
        """
        verified = verify(pack)
        config = Config(engine=Engine(threads=threads), detector=finding or Detector())
        detector, face = verified.manifest.detector, verified.manifest.face
        decisive = f"{detector.sha256} {detector.decoder} {face.side} {face.template}"
        if verified.manifest.landmarks is not UNSET:
            decisive += f" {verified.manifest.landmarks.sha256} {verified.manifest.landmarks.margin}"
        if detector.anchors:
            decisive += f" {detector.anchors}"
        self.digest = hashlib.sha256(decisive.encode()).hexdigest()
        self._networks = networks.load(verified, config)
        self._reader = FaceReader(self._networks, config, time.perf_counter)
        self._face = face

    def find(self, image: Image) -> list[Detection]:
        """Every face in ``image`` (uint8 BGR [height, width, 3]), largest first."""
        return self._reader.find(image)

    def subject(self, image: Image) -> Detection | None:
        """The face nearest the centre, which data sets of people show; None where there is no face."""
        faces = self.find(image)
        return central(image, faces) if faces else None

    def template(self, side: int) -> Float32:
        """Where the five landmarks lie in a chip of another side than the pack's: float32 [5, 2], pixels."""
        return scaled(self._face.template, self._face.side, side)

    def aligned(self, image: Image, face: Detection, side: int, template: Float32 | None = None) -> Image:
        """The chip of a face: uint8 BGR [side, side, 3], aligned to float32 [5, 2] or the pack's own template."""
        chip = np.empty((side, side, 3), np.uint8)
        align(image, face.landmarks, self.template(side) if template is None else template, chip)
        return chip

    def close(self) -> None:
        """Release the networks."""
        self._networks.close()


def scaled(template: Sequence[tuple[float, float]], side: int, wanted: int) -> Float32:
    """Where points of a chip of ``side`` pixels lie in one of ``wanted``: float32 [n, 2], pixels.

    Pixels are squares: the chip's edge, half a pixel outside the first centre, is what stays at the edge.
    """
    middles = np.array(template, np.float32)
    return np.asarray((middles + 0.5) * (wanted / side) - 0.5, np.float32)
