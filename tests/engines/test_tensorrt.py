"""The parts of the TensorRT backend that need no device, and what happens where there is none."""

import subprocess
import sys

import numpy as np
import onnx
import pytest

from engines.engine import EngineError
from engines.norms import read_norms
from engines.probe import CudaProbe, Device, LibraryProbe, interpret, load_library, probe_cuda, probe_library
from engines.tensorrt_engine import Norms, Tensor, TensorRTEngine, layout

USED = {
    "Builder": ["create_network", "create_builder_config", "build_serialized_network"],
    "IBuilderConfig": [
        "set_memory_pool_limit",
        "profiling_verbosity",
        "set_flag",
        "progress_monitor",
        "create_timing_cache",
        "set_timing_cache",
        "get_timing_cache",
    ],
    "INetworkDefinition": ["mark_weights_refittable"],
    "OnnxParser": ["parse", "num_errors", "get_error"],
    "ITimingCache": ["serialize"],
    "Runtime": ["deserialize_cuda_engine"],
    "ICudaEngine": [
        "num_io_tensors",
        "get_tensor_name",
        "get_tensor_shape",
        "get_tensor_dtype",
        "get_tensor_mode",
        "create_execution_context",
    ],
    "IExecutionContext": ["set_tensor_address", "execute_async_v3"],
    "Refitter": ["set_named_weights", "refit_cuda_engine", "get_missing_weights"],
    "BuilderFlag": ["REFIT_INDIVIDUAL"],
    "MemoryPoolType": ["WORKSPACE"],
    "ProfilingVerbosity": ["DETAILED"],
    "TensorIOMode": ["INPUT"],
    "NetworkDefinitionCreationFlag": ["STRONGLY_TYPED"],
}
F4, U1, F2 = np.dtype("float32"), np.dtype("uint8"), np.dtype("float16")


@pytest.fixture(scope="module")
def bindings():
    library = probe_library("tensorrt-rtx")
    if library.problem:
        pytest.skip(library.problem)
    return load_library("tensorrt-rtx")


@pytest.mark.parametrize("kind", USED)
def test_the_newest_api_has_all_that_we_use(bindings, kind):
    """TensorRT for RTX 1.7 has the API of TensorRT 11; the stubs that mypy reads are of the oldest that there are."""
    assert not [name for name in USED[kind] if not hasattr(getattr(bindings, kind), name)]


def test_inputs_and_outputs_are_told_apart():
    inputs, outputs = layout(
        [
            Tensor("embedding", (1, 128), F4, is_input=False),
            Tensor("chip", (1, 150, 150, 3), U1, is_input=True),
            Tensor("emotion", (1, 7), F4, is_input=False),
        ],
        "face.plan",
    )
    assert [(spec.name, spec.shape, spec.dtype) for spec in inputs] == [("chip", (1, 150, 150, 3), U1)]
    assert [spec.name for spec in outputs] == ["embedding", "emotion"]


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (Tensor("chip", (-1, 150, 150, 3), U1, is_input=True), "open dimensions"),
        (Tensor("embedding", (1, 128), F2, is_input=False), "float16"),
    ],
)
def test_a_plan_that_the_agent_could_not_feed_is_refused_by_name(tensor, told):
    with pytest.raises(EngineError, match=rf"face\.plan.*{tensor.name}.*{told}"):
        layout([tensor], "face.plan")


def test_an_exchange_always_sets_every_norm_parameter(small):
    """The spare engine may have any parameters: what is not named comes from the engine that is asked."""
    base = Norms(small)
    first = base.changed({"norm.layer0.scale": np.full(16, 2, np.float32)})
    second = first.changed({"norm.layer0.shift": np.full(16, 3, np.float32)})
    assert list(second.values()) == list(read_norms(small))
    assert (second.values()["norm.layer0.scale"] == 2).all()
    assert (second.values()["norm.layer0.shift"] == 3).all()
    assert not (base.values()["norm.layer0.scale"] == 2).all()


def test_norms_are_kept_without_the_weights(small):
    assert Norms(small)._bare.ByteSize() < 0.01 * small.ByteSize()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm.nowhere.scale", np.ones(16, np.float32)),
        ("norm.layer0.scale", np.ones(15, np.float32)),
        ("norm.layer0.scale", np.full(16, np.nan, np.float32)),
    ],
)
def test_a_norm_parameter_that_does_not_fit_is_refused(small, name, value):
    with pytest.raises(ValueError, match=name):
        Norms(small).changed({name: value})


def test_without_a_gpu_loading_says_so_and_names_the_way_out(pack):
    if probe_cuda().device is not None:
        pytest.skip("there is a GPU here")
    with pytest.raises(EngineError, match=r"tensorrt: no CUDA.*engine\.backend"):
        TensorRTEngine.load(pack.face, {"N": 1}, "fp32")


def test_the_agent_loads_no_cuda_and_no_tensorrt_before_it_is_asked_to():
    code = (
        "import sys, agent.daemon, engines.tensorrt_engine\n"
        "print([name for name in sys.modules if name.startswith(('tensorrt', 'pycuda'))])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"


def test_a_probe_finds_a_gpu_or_says_why_not():
    found = probe_cuda()
    assert (found.device is None) == bool(found.problem)


def test_the_type_stubs_are_not_taken_for_tensorrt(tmp_path):
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.pyi").touch()
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "from engines.probe import _find_library; print(_find_library('tensorrt'))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    try:
        import tensorrt

        real = hasattr(tensorrt, "Builder")
    except ImportError:
        real = False
    assert real or "not installed" in told


@pytest.mark.parametrize(
    ("status", "output", "errors", "problem"),
    [
        (-11, b"", b"", "SIGSEGV"),
        (-6, b'{"device": null}', b"", "SIGABRT"),
        (1, b"", b"Traceback\nImportError: libnvinfer.so.10", "libnvinfer"),
        (3, b"", b"", "exit status 3"),
        (0, b"not json", b"", "failed"),
        (0, b"\xff\xfe", b"\xff", "failed"),
    ],
)
def test_a_probe_that_dies_is_a_finding_and_no_failure(status, output, errors, problem):
    assert problem in interpret(status, output, errors, CudaProbe).problem
    assert problem in interpret(status, output, errors, LibraryProbe).problem


def test_what_libraries_print_before_the_answer_does_not_matter():
    output = b'[TRT] [W] hello\n{"device": {"name": "Orin", "capability": "8.7", "memory_mb": 7620, "cuda": "12.6"}}\n'
    assert interpret(0, output, b"", CudaProbe) == CudaProbe(Device("Orin", "8.7", 7620, "12.6"))


def test_the_face_network_has_its_norms_in_the_graph_that_is_built(pack):
    """Refitting goes by name: every norm parameter must be read by a Mul or Add, unfolded."""
    from engines.precision import for_tensorrt

    model = for_tensorrt(onnx.load(pack.face), "fp16")
    readers = {name: node.op_type for node in model.graph.node for name in node.input}
    assert {readers[name] for name in read_norms(model)} == {"Mul", "Add"}
