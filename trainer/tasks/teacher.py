"""A finished face network as a teacher: what it makes of faces, computed once."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines import pack
from engines.engine import EngineError
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.pack import Pack
from trainer.common.job import Advance, TrainingError
from trainer.data.reading import Source, rgb

EMBEDDING = "embedding"


@dataclass(frozen=True)
class Teacher:
    """The face network of a pack.

    Attributes:
        pack: verified.
        engine: the network for one face.
    """

    pack: Pack
    engine: OnnxRuntimeEngine

    @property
    def side(self) -> int:
        """Side of its pictures, pixels."""
        return self.pack.manifest.face.side

    @property
    def dim(self) -> int:
        """Length of its embedding."""
        return self.pack.manifest.face.dim

    @property
    def sha256(self) -> str:
        """Digest of the network."""
        return self.pack.manifest.face.sha256

    def embeddings(
        self, faces: Source, what: str, advance: Advance, *, mirrored: bool = False
    ) -> NDArray[np.float32]:
        """Its embeddings, float32 [n, dim] of length 1.

        Args:
            faces: of its side.
            what: they are called in the progress.
            advance: told of the progress.
            mirrored: show it their mirror images.
        """
        count = len(faces.labels)
        found = np.empty((count, self.dim), np.float32)
        for item in range(count):
            picture = rgb(faces.read(item))
            chip = picture[:, ::-1] if mirrored else picture
            found[item] = self.engine.run({"chip": chip[None]})[EMBEDDING][0]
            advance(f"teacher's embeddings, {what}", 1, count)
        return found


def open_teacher(folder: str, threads: int) -> Teacher:
    """The teacher in a pack.

    Raises:
        PackError: the pack is missing or damaged.
        TrainingError: its face network does not load.
    """
    verified = pack.verify(Path(folder).expanduser())
    try:
        engine = OnnxRuntimeEngine.load(
            verified.face, SessionSettings(threads=max(1, threads), dims={"N": 1})
        )
    except EngineError as error:
        raise TrainingError(f"the teacher cannot be used: {error}") from error
    return Teacher(verified, engine)
