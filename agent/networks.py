"""Load the models of a pack into engines."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from agent.config import Config, ConfigError
from agent.config import Engine as Settings
from agent.perception.chain import Networks
from agent.perception.detector import DECODERS
from engines.engine import Engine, EngineError
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.pack import Pack

log = logging.getLogger(__name__)

_MOST_THREADS = 4  # beyond four, nets of this size spend more time meeting than computing

Loader = Callable[[Path, Mapping[str, int]], Engine]
"""Loads an ONNX file; the mapping gives sizes to the symbolic dimensions of its inputs."""


def load(pack: Pack, config: Config) -> Networks:
    """The engines of a verified pack, as ``config`` wants them.

    Where ``engine.fallback`` allows it, ONNX Runtime on the processor takes the place of a backend or provider that
    does not run, and the networks carry a note that says so.

    Raises:
        EngineError: a model does not load as asked for, or is not what the manifest says.
        ConfigError: the detector's input size does not suit the pack.
    """
    detector, face = pack.manifest.detector, pack.manifest.face
    if detector.decoder not in DECODERS:
        raise EngineError(
            f"{pack.detector}: decoder {detector.decoder!r} is not known; there are {', '.join(DECODERS)}"
        )
    size = {"H": config.detector.height, "W": config.detector.width}
    if any(side % detector.stride for side in size.values()):
        raise ConfigError(
            f"detector.width and detector.height must be multiples of {detector.stride} for the pack {pack.path}"
        )
    settings = msgspec.structs.replace(
        config.engine, threads=config.engine.threads or min(_MOST_THREADS, os.cpu_count() or 1)
    )
    notes: tuple[str, ...] = ()
    try:
        engines = _engines(pack, size, settings)
    except EngineError as error:
        if not settings.fallback:
            raise
        plain = msgspec.structs.replace(settings, backend="onnxruntime", providers=("cpu",))
        engines = _engines(pack, size, plain)
        notes = (f"the models run on ONNX Runtime and the processor, as engine.fallback allows: {error}",)
        log.warning(notes[0])
    networks = Networks(pack.manifest, *engines, notes)
    expected = {"embedding": (1, face.dim), "emotion": (1, len(face.labels))}
    found = {spec.name: spec.shape for spec in networks.face.outputs}
    if found != expected:
        raise EngineError(f"{pack.face}: outputs are {found}, the manifest says {expected}")
    return networks


def _engines(pack: Pack, size: Mapping[str, int], settings: Settings) -> tuple[Engine, Engine]:
    """Detector and face network, both on one backend."""
    one = _BACKENDS[settings.backend](settings)
    return one(pack.detector, size), one(pack.face, {"N": 1})


# Each backend but the first is imported when it is asked for: it comes with an extra, and may not be there.


def _onnxruntime(settings: Settings) -> Loader:
    def one(path: Path, dims: Mapping[str, int]) -> Engine:
        session = SessionSettings(settings.threads, settings.spinning, dims, settings.providers)
        return OnnxRuntimeEngine.load(path, session)

    return one


def _openvino(settings: Settings) -> Loader:
    try:
        from engines.openvino_engine import OpenVINOEngine  # noqa: PLC0415
    except ImportError as error:
        raise _absent("openvino", error) from error
    return lambda path, dims: OpenVINOEngine.load(path, settings.threads, dims)


def _litert(settings: Settings) -> Loader:
    try:
        from engines.litert_engine import LiteRTEngine  # noqa: PLC0415
    except ImportError as error:
        raise _absent("litert", error) from error
    return lambda path, dims: LiteRTEngine.load(path, settings.threads, dims)


def _tensorrt(settings: Settings) -> Loader:
    raise EngineError(f"engine.backend = {settings.backend!r} cannot be loaded by this version; set another")


_BACKENDS: dict[str, Callable[[Settings], Loader]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "litert": _litert,
    "tensorrt": _tensorrt,
}


def _absent(backend: str, error: ImportError) -> EngineError:
    return EngineError(
        f"engine.backend = {backend!r}, but that is not installed ({error}); "
        f"`pip install 'cabinsense[{backend}]'`, or set engine.backend = \"onnxruntime\""
    )
