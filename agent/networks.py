"""Load the models of a pack into engines."""

import os

from agent.config import Config, ConfigError
from agent.perception.chain import Networks
from agent.perception.detector import DECODERS
from engines.engine import EngineError
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.pack import Pack

_MOST_THREADS = 4  # beyond four, nets of this size spend more time meeting than computing


def load(pack: Pack, config: Config) -> Networks:
    """The engines of a verified pack, as ``config`` wants them.

    Raises:
        EngineError: a model does not load, or is not what the manifest says.
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
    threads = config.engine.threads or min(_MOST_THREADS, os.cpu_count() or 1)
    networks = Networks(
        pack.manifest,
        OnnxRuntimeEngine.load(pack.detector, SessionSettings(threads, config.engine.spinning, size)),
        OnnxRuntimeEngine.load(pack.face, SessionSettings(threads, config.engine.spinning, {"N": 1})),
    )
    expected = {"embedding": (1, face.dim), "emotion": (1, len(face.labels))}
    found = {spec.name: spec.shape for spec in networks.face.outputs}
    if found != expected:
        raise EngineError(f"{pack.face}: outputs are {found}, the manifest says {expected}")
    return networks
