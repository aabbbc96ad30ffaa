"""The default pack: made here from published weights and the project's own emotion branch.

The conversions give the same bytes on every machine, so that every default pack of one version has the same digest and
galleries can be carried from one to the other.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import onnx

from engines.pack import (
    MANIFEST,
    SCHEMA,
    DetectorModel,
    FaceModel,
    Manifest,
    Pack,
    PackError,
    encode_manifest,
    verify,
)
from engines.sources import archives, centerface
from engines.sources.dlib_format import read_layers
from engines.sources.dlib_resnet import EMBEDDING_DIM, SIDE, face_network
from engines.sources.fetch import Watch, fetch
from engines.sources.join import join
from engines.sources.storage import locked, new_folder, write_file

# dlib's mean face, enlarged by 5 %: left eye, right eye, nose tip, corners of the mouth. Chosen on LFW folds 1-5.
TEMPLATE = ((46.18, 45.18), (101.75, 45.18), (73.96, 76.64), (49.18, 104.42), (98.74, 104.42))
# The order of FER2013's label numbers.
LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
THRESHOLD = 0.914
THRESHOLD_BASIS = "LFW view 2, folds 1-5, FAR 1e-3"

_HERE = Path(__file__).parent
_EMOTION = _HERE / "emotion.onnx"


def make(target: Path, sources: Path, watch: Watch, *, force: bool = False) -> Pack:
    """See to it that the default pack of this version lies in folder ``target``.

    A pack that is there, whole and of this version stays as it is.

    Args:
        target: folder of the pack.
        sources: folder of downloads.
        watch: is told how the downloads go on.
        force: make it anew in any case.

    Raises:
        PackError: something cannot be fetched, read or written.
    """
    if not force and (pack := _current(target)):
        return pack
    try:
        with locked(target.with_name(f".{target.name}.lock")):
            if not force and (pack := _current(target)):  # another process has made it meanwhile
                return pack
            found = fetch(archives.MODELS, sources, watch)
            with new_folder(target) as folder:
                _build(folder, found[archives.CENTERFACE], found[archives.FACE_RESNET])
    except OSError as error:
        raise PackError(
            f"{error.filename or target}: {error.strerror}; make room or rights there, or set CABINSENSE_DATA to "
            "another folder"
        ) from error
    return verify(target)
