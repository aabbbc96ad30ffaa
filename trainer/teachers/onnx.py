"""Teachers that are ONNX graphs: a pack's face network, or another network that reads faces."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from engines import pack
from engines.model import drop_unused
from engines.pack import file_digest
from trainer.common import runtime
from trainer.teachers.interface import LAYER, TeacherError, TeacherSettings

_HALF = (0.5, 0.5, 0.5)  # ArcFace's networks read pixels in -1..1


class OnnxTeacher:
    """A graph with one input: uint8 BGR [N, side, side, 3] as packs have it, or float RGB [N, 3, side, side].

    Attributes:
        side: of its pictures.
        sha256: of the file, and of the names of the answers.
        face: what its pack says of it; None where it is a file.
    """

    def __init__(self, settings: TeacherSettings, source: str, answers: Sequence[str], threads: int) -> None:
        """Load it.

        Args:
            settings: of this teacher.
            source: folder of a pack, or a file.
            answers: what is wanted.
            threads: that share its work; 0 lets ONNX Runtime choose.

        Raises:
            TeacherError: it cannot be used.
        """
        path = Path(source).expanduser()
        try:
            verified = pack.verify(path) if path.is_dir() else None
            file = path if verified is None else verified.face
            model = onnx.load(str(file))
            names = {
                answer: answer.removeprefix(LAYER)
                if answer.startswith(LAYER)
                else getattr(settings.tensors, answer)
                for answer in answers
            }
            wanted = _with_outputs(model, list(dict.fromkeys(names.values())))
            self._session = runtime.session(wanted, threads)
        except (pack.PackError, TeacherError) as error:
            raise TeacherError(f"teacher {settings.name}: {error}") from error
        except Exception as error:  # neither onnx's nor ONNX Runtime's errors have a common class
            raise TeacherError(f"teacher {settings.name}: {path} cannot be loaded ({error})") from error
        self.face = None if verified is None else verified.manifest.face
        self._names = names
        inputs = self._session.get_inputs()
        shape = inputs[0].shape
        self._bytes = inputs[0].type == "tensor(uint8)"
        own = shape[1 if self._bytes else 2] if len(shape) == 4 else None
        channels = shape[3 if self._bytes else 1] if len(shape) == 4 else None
        if len(inputs) != 1 or channels != 3 or inputs[0].type not in {"tensor(uint8)", "tensor(float)"}:
            raise TeacherError(
                f"teacher {settings.name}: {path} reads {inputs[0].type} {shape}; needed is one picture, uint8 "
                "[N, side, side, 3] or float [N, 3, side, side]"
            )
        self._input = inputs[0].name
        self._one = shape[0] == 1
        self.side = int(own) if isinstance(own, int) else settings.side
        if self.side < 1 or settings.side not in {0, self.side}:
            raise TeacherError(f"teacher {settings.name}: {path} takes pictures of {shape}; set side to that")
        self._mean, self._deviation = (
            torch.tensor(values or _HALF)[:, None, None] for values in (settings.mean, settings.deviation)
        )
        self.sha256 = file_digest(file)

    def __call__(self, pictures: Tensor) -> dict[str, Tensor]:
        """See ``Teacher.__call__``."""
        there = pictures.cpu()
        if self._bytes:
            feed = np.ascontiguousarray(there.numpy()[:, ::-1].transpose(0, 2, 3, 1))
        else:
            feed = ((there.float() / 255 - self._mean) / self._deviation).numpy()
        wanted = list(self._names.values())
        if self._one:
            parts = [self._session.run(wanted, {self._input: feed[i : i + 1]}) for i in range(len(feed))]
            found = [np.concatenate(each) for each in zip(*parts, strict=True)]
        else:
            found = self._session.run(wanted, {self._input: feed})
        return {
            answer: torch.from_numpy(np.asarray(array, np.float32)).to(pictures.device)
            for answer, array in zip(self._names, found, strict=True)
        }


def _with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """A copy of a graph that computes these tensors, and nothing that they do not need.

    Raises:
        TeacherError: there is no such tensor.
    """
    made = {name for node in model.graph.node for name in node.output}
    for name in names:
        if name not in made:
            outputs = ", ".join(output.name for output in model.graph.output)
            raise TeacherError(f"no tensor {name!r} is in the graph; its outputs are {outputs}")
    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    del smaller.graph.output[:]
    smaller.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    drop_unused(smaller.graph)
    return smaller
