"""Load the models of a pack into engines."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import UNSET

from agent.config import Config, ConfigError
from agent.config import Engine as Settings
from agent.perception import ssd
from agent.perception.chain import Networks
from agent.perception.detector import DECODERS
from engines import gates
from engines.engine import Engine, EngineError, TensorSpec
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.pack import MANIFEST, Pack

log = logging.getLogger(__name__)

_MOST_THREADS = 4  # beyond four, nets of this size spend more time meeting than computing

Loader = Callable[[Path, Mapping[str, int]], Engine]
"""Loads an ONNX file; the mapping gives sizes to the symbolic dimensions of its inputs."""


def load(pack: Pack, config: Config, *, gated: bool = True, coarse: bool = False) -> Networks:
    """The engines of a verified pack, as ``config`` wants them.

    Where ``engine.fallback`` allows it, ONNX Runtime on the processor takes the place of a backend or provider that
    does not run or has not passed the gate, and the networks carry a note that says so.

    Args:
        pack: verified.
        config: what is asked for.
        gated: refuse engines that have not passed the gate; only the gate itself may load them.
        coarse: load the detector a second time, for pictures of half the width and height, where the backend can do
            that: a TensorRT plan is for one size.

    Raises:
        EngineError: a model does not load as asked for, has not passed the gate, or is not what the manifest says.
        ConfigError: the detector's input size does not suit the pack.
    """
    detector, face = pack.manifest.detector, pack.manifest.face
    if detector.decoder not in DECODERS:
        raise EngineError(
            f"{pack.detector}: decoder {detector.decoder!r} is not known; there are {', '.join(DECODERS)}"
        )
    if detector.decoder == "ssd" and not detector.anchors:
        raise EngineError(f"{pack.detector}: the decoder ssd needs detector.anchors, and {MANIFEST} has none")
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
        engines = _engines(pack, size, settings, gated, coarse)
    except EngineError as error:
        if not settings.fallback:
            raise
        plain = msgspec.structs.replace(settings, backend="onnxruntime", providers=("cpu",), precision="fp32")
        engines = _engines(pack, size, plain, gated, coarse)
        notes = (f"the models run on ONNX Runtime and the processor, as engine.fallback allows: {error}",)
        log.warning(notes[0])
    landmarks = _landmarks(pack, settings.threads)
    coarse_detector = engines[2] if len(engines) > 2 else None
    networks = Networks(pack.manifest, engines[0], engines[1], notes, coarse_detector, landmarks)
    heads = {"embedding": (1, face.dim), "emotion": (1, len(face.labels))}
    _expect(pack.face, networks.face.inputs, {"chip": (1, face.side, face.side, 3)})
    _expect(pack.face, networks.face.outputs, heads)
    _expect(pack.detector, networks.detector.inputs, {"image": (1, size["H"], size["W"], 3)})
    if detector.decoder == "ssd":
        _expect(pack.detector, networks.detector.outputs, ssd.maps(detector.anchors, size["W"], size["H"]))
    return networks


def _landmarks(pack: Pack, threads: int) -> Engine | None:
    """The landmark network of a pack that has one.

    It is too small to gain anything elsewhere, and decides how every face is aligned: it runs as it was trained, in
    FP32 on ONNX Runtime's processor kernels, whatever runs the others.
    """
    model = pack.manifest.landmarks
    if pack.landmarks is None or model is UNSET:
        return None
    engine = OnnxRuntimeEngine.load(pack.landmarks, SessionSettings(threads, dims={"N": 1}))
    _expect(pack.landmarks, engine.inputs, {"chip": (1, model.side, model.side, 3)})
    _expect(pack.landmarks, engine.outputs, {"points": (1, 10)})
    return engine


def _expect(file: Path, specs: Iterable[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise EngineError if a model's tensors are not what the manifest makes of them."""
    found = {spec.name: spec.shape for spec in specs}
    if found != shapes:
        raise EngineError(f"{file}: its tensors are {found}, the manifest says {dict(shapes)}")


def _engines(
    pack: Pack, size: Mapping[str, int], settings: Settings, gated: bool, coarse: bool
) -> tuple[Engine, ...]:
    """Detector and face network, and if wanted and possible the coarse detector, all on one backend."""
    one = _BACKENDS[settings.backend](settings)
    if settings.precision == "fp16" and settings.backend != "tensorrt":
        raise EngineError(f'{settings.backend} runs no fp16; set engine.precision = "fp32" or "int8"')
    # TensorRT looks for the file behind a plan by itself.
    files = gates.models(pack, "fp32" if settings.backend == "tensorrt" else settings.precision)
    if settings.precision == "int8":
        gates.digests(files)  # a missing file is told with its remedy
    engines: tuple[Engine, ...] = (one(files["detector"], size), one(files["face"], {"N": 1}))
    if coarse and settings.backend != "tensorrt":
        stride = pack.manifest.detector.stride
        half = {side: max(stride, pixels // 2 // stride * stride) for side, pixels in size.items()}
        engines += (one(files["detector"], half),)
    if gated:
        try:
            gates.require_passed(pack, gates.name(settings.backend, settings.providers), settings.precision)
        except EngineError:
            for engine in engines:
                engine.close()
            raise
    return engines


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
    from engines.tensorrt_engine import TensorRTEngine  # noqa: PLC0415

    return lambda path, dims: TensorRTEngine.load(path, dims, settings.precision)


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
