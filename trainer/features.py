"""The frozen trunk's feature maps of a data set, computed once and kept on disk.

The trunk never changes while a branch trains, so its output for a given chip is computed once. Each *version*
of the training set is one random variant of every image; version ``None`` is the plain one. A version is a
``.npy`` of float16 [N, 64, 17, 17] (1.06 GB for FER2013's training split), named by the digest of everything
it depends on.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from calibration.fer2013 import to_chip
from engines import pack
from engines.errors import UserError
from trainer.augment import Augmentation, augment
from trainer.common import runtime

FEATURES = "features"
SHAPE = (64, 17, 17)
_BATCH = 32
_FORMAT = 1  # part of the key: raise it when the meaning of a cached file changes


class TrunkError(UserError):
    """The face network cannot serve as trunk; the message says why."""


@dataclass(frozen=True)
class Trunk:
    """The face network cut at its feature map, and the SHA-256 of what is left.

    The digest is of nodes and weights, not of the file: joining a new branch to the network leaves it the
    same.
    """

    session: onnxruntime.InferenceSession
    sha256: str

    def features(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Feature maps float32 [N, 64, 17, 17] of chips uint8 BGR [N, 150, 150, 3]."""
        (maps,) = self.session.run([FEATURES], {"chip": chips})
        return np.asarray(maps, np.float32)


def open_trunk(path: Path, threads: int) -> Trunk:
    """Load a face network (input ``chip``, output ``features``) and keep only what leads to the map.

    Raises:
        TrunkError: the file is missing, is no ONNX, or has no such output; or the pack is not whole.
    """
    if path.is_dir():
        try:
            path = pack.verify(path).face
        except pack.PackError as error:
            raise TrunkError(f"trunk: {error}") from error
    if not path.is_file():
        raise TrunkError(
            f"trunk {path} does not exist; run `cabinsense models fetch`, or set trunk to a pack's folder"
        )
    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError is not part of onnx's interface
        raise TrunkError(f"{path} is not an ONNX file ({error})") from error
    trunk = cut(model, FEATURES)
    digest = hashlib.sha256()
    for part in (*trunk.graph.node, *trunk.graph.initializer):
        digest.update(part.SerializeToString(deterministic=True))
    return Trunk(runtime.session(trunk, threads), digest.hexdigest())


def cut(model: onnx.ModelProto, output: str) -> onnx.ModelProto:
    """A copy of ``model`` that computes only ``output``.

    ONNX Runtime runs every node of a graph, whichever outputs are asked for.

    Raises:
        TrunkError: no node makes ``output``.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    if output not in made_by:
        raise TrunkError(
            f"the face network has no output '{output}'; it makes {[o.name for o in model.graph.output]}"
        )
    needed: set[str] = set()
    todo = [output]
    while todo:
        name = todo.pop()
        if name not in needed:
            needed.add(name)
            todo.extend(made_by[name].input if name in made_by else ())
    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    graph = smaller.graph
    nodes = [node for node in graph.node if any(name in needed for name in node.output)]
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    for field in ("node", "initializer", "output"):
        graph.ClearField(field)
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
    # In a pack's network the features are no output, only a value on the way to the heads.
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    return smaller


def version_key(
    data_sha256: str, trunk_sha256: str, split: str, settings: Augmentation, version: int | None
) -> str:
    """Name of a cached version: a digest of all that its content depends on."""
    parts = [_FORMAT, data_sha256, trunk_sha256, split, version, None if version is None else settings]
    digest = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
    return f"{split}-{'plain' if version is None else version}-{digest[:16]}"


def make_chip(
    image: NDArray[np.uint8], index: int, version: int | None, settings: Augmentation
) -> NDArray[np.uint8]:
    """The chip of image number ``index`` in a version; depends on nothing but its arguments."""
    if version is None:
        return to_chip(image)
    return augment(image, settings, np.random.default_rng((version, index)))


def version_features(
    path: Path,
    images: NDArray[np.uint8],
    trunk: Trunk,
    *,
    version: int | None,
    settings: Augmentation,
    advance: Callable[[int], None],
) -> NDArray[np.float16]:
    """Feature maps float16 [N, 64, 17, 17] of one version, read-only from ``path``, made if it is missing.

    Args:
        path: the cache file; written beside it and renamed, so that an interrupted run leaves no half file.
        images: uint8 [N, 48, 48].
        trunk: the network up to the feature map.
        version: number of the random variant, or None for the plain chips.
        settings: how far variants stray.
        advance: called with the number of images finished.
    """
    shape = (len(images), *SHAPE)
    if path.is_file():
        advance(len(images))
        return open_maps(path, shape)
    with new_maps(path, shape) as out:
        for start in range(0, len(images), _BATCH):
            block = images[start : start + _BATCH]
            chips = np.stack(
                [make_chip(image, start + i, version, settings) for i, image in enumerate(block)]
            )
            out[start : start + len(block)] = trunk.features(chips)
            advance(len(block))
    return open_maps(path, shape)


@contextmanager
def new_maps(path: Path, shape: tuple[int, ...]) -> Iterator[NDArray[np.float16]]:
    """A float16 array to fill, which becomes the file at the end; an interrupted run leaves no half one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
    yield out
    out.flush()
    partial.rename(path)


def open_maps(path: Path, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Cached feature maps float16, read-only, on disk.

    Raises:
        TrunkError: they have another shape.
    """
    maps: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    if maps.shape != shape or maps.dtype != np.float16:
        raise TrunkError(f"cached features {path} have the wrong shape {list(maps.shape)}; delete the file")
    return maps
