"""A finished face network as a teacher: what it makes of faces, computed once."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines import pack
from engines.engine import EngineError
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.pack import Pack
from engines.sources.storage import write_file
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


def kept(
    teacher: Teacher,
    faces: Source,
    digest: str,
    folder: Path | None,
    what: str,
    advance: Advance,
    *,
    mirrored: bool = False,
) -> NDArray[np.float32]:
    """A teacher's embeddings, from a folder or, where they are not there yet, computed and left there.

    Args:
        teacher: who is asked.
        faces: see ``Teacher.embeddings``, as for the rest.
        digest: of the faces of the run.
        folder: None keeps nothing.
        what: they are; part of what they are known by.
        advance: told of the progress.
        mirrored: see there.

    Raises:
        TrainingError: the folder cannot be used.
    """
    if folder is None:
        return teacher.embeddings(faces, what, advance, mirrored=mirrored)
    names = hashlib.sha256(f"{teacher.sha256} {digest} {what} {mirrored}".encode()).hexdigest()
    file = folder / f"embeddings-{names[:32]}.npy"
    try:
        if file.is_file():
            found: NDArray[np.float32] = np.load(file, allow_pickle=False)
            if found.dtype == np.float32 and found.shape == (len(faces.labels), teacher.dim):
                return found
        found = teacher.embeddings(faces, what, advance, mirrored=mirrored)
        folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, found, allow_pickle=False)
        write_file(file, buffer.getvalue())
    except (OSError, ValueError, EOFError) as error:
        raise TrainingError(f"{file}: {error}; delete it, or name another folder") from error
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
