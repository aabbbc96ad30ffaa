"""Try the engines out on this box: build, gate, latency, and an exchange of norm parameters while another thread runs.

Each backend that can be loaded here is tried; TensorRT only where there is a GPU, after its plans have been built.
"""

import threading
import time
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from agent import networks
from agent.config import Config
from agent.doctor import Line, State
from agent.inspection import installed_backends
from agent.perception.chain import Networks
from engines import gates
from engines.build import Model, choose_target, ensure_plan
from engines.engine import Array, Engine, EngineError
from engines.errors import UserError
from engines.model import read_model
from engines.norms import read_norms
from engines.pack import Pack
from engines.probe import Device

_LIMIT_MS = 20.0  # the mission's budget of a frame: 15 to 20 ms at batch 1, detector and one face
_WARM_UP, _FRAMES = 20, 200
_SWAPS = 10
_TOLERANCE = 1e-3  # kernels on a GPU need not add in the same order each time


def accept(pack: Pack, config: Config, device: Device | None) -> Iterator[Line]:
    """Try each backend, one line a trial.

    Args:
        pack: verified.
        config: sizes and threads; its engine is the one that must pass.
        device: the GPU that a probe has found.
    """
    asked = config.engine
    if device is None:
        yield Line("TensorRT", "ok", "not tried: no GPU here")
    backends = [*installed_backends(), *(["tensorrt"] if device else [])]
    for backend in dict.fromkeys([asked.backend, *backends]):
        if backend not in backends:
            continue  # doctor's own lines say why it cannot be had
        engine = asked
        if backend != asked.backend:
            precision = "fp16" if backend == "tensorrt" else "fp32"
            engine = msgspec.structs.replace(asked, backend=backend, precision=precision, providers=("cpu",))
        engine = msgspec.structs.replace(engine, fallback=False)
        yield from _try(
            pack, msgspec.structs.replace(config, engine=engine), device, backend == asked.backend
        )


def _try(pack: Pack, config: Config, device: Device | None, asked: bool) -> Iterator[Line]:
    """All trials of one engine."""
    engine = config.engine
    name = f"{gates.name(engine.backend, engine.providers)} {engine.precision}"
    bad: State = "fail" if asked else "warn"
    try:
        if engine.backend == "tensorrt":
            yield Line(f"{name}: build", "ok", _build(pack, config, device))
        loaded = networks.load(pack, config, gated=False)
    except UserError as error:
        yield Line(f"{name}: load", bad, str(error))
        return
    try:
        p50, p95, p99 = latency(loaded)
        told = f"p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms for detector ({_size(config)}) and one face"
        late = p95 > _LIMIT_MS
        remedy = "a smaller detector, fp16 or int8, or a higher power mode" if late else ""
        yield Line(f"{name}: latency", bad if late else "ok", f"{told}; limit {_LIMIT_MS:g} ms", remedy)
        file = gates.models(pack, engine.precision)["face"]
        yield Line(f"{name}: exchange", "ok", exchange(loaded.face, read_norms(read_model(file))))
    except EngineError as error:
        yield Line(f"{name}: exchange", bad, str(error))
    finally:
        loaded.close()


def _build(pack: Pack, config: Config, device: Device | None) -> str:
    started = time.monotonic()
    target = choose_target("tensorrt", None, device)
    detector = {"H": config.detector.height, "W": config.detector.width}
    models = (Model(pack.detector, detector), Model(pack.face, {"N": 1}))
    built = [ensure_plan(model, target, config.engine.precision)[1] for model in models]
    return f"{sum(built)} plans built in {time.monotonic() - started:.0f} s, {len(built) - sum(built)} good already"


def _size(config: Config) -> str:
    return f"{config.detector.width}×{config.detector.height}"


def latency(loaded: Networks) -> tuple[float, float, float]:
    """p50, p95 and p99 of one run of the detector and of what is run for one face, milliseconds."""
    noise = np.random.default_rng(0)
    engines = [each for each in (loaded.detector, loaded.landmarks, loaded.face) if each is not None]
    for engine in engines:
        for spec in engine.inputs:
            engine.buffer(spec.name)[...] = noise.integers(0, 256, spec.shape, np.uint8)
    times = []
    for number in range(_WARM_UP + _FRAMES):
        started = time.perf_counter()
        for engine in engines:
            engine.run()
        if number >= _WARM_UP:
            times.append((time.perf_counter() - started) * 1e3)
    p50, p95, p99 = np.percentile(times, (50, 95, 99))
    return float(p50), float(p95), float(p99)


def exchange(face: Engine, norms: Mapping[str, Array]) -> str:
    """Exchange the norm parameters of a face network while another thread runs it.

    Returns:
        What was seen.

    Raises:
        EngineError: the parameters change nothing, an output belongs to neither set of them, or the engine fails.
    """
    noise = np.random.default_rng(1)
    other = {
        name: value * noise.uniform(0.9, 1.1, value.shape).astype(np.float32) for name, value in norms.items()
    }
    (spec,) = face.inputs
    chip = noise.integers(0, 256, spec.shape, np.uint8)
    answers = []
    for params in (norms, other):
        one = face.with_norms(params)
        answers.append({name: value.copy() for name, value in one.run({spec.name: chip}).items()})
        one.close()
    if _same(*answers):
        raise EngineError("other norm parameters change nothing: the engine does not take them")
    runner = _Runner(face.with_norms(norms), spec.name, chip, answers)
    runner.start()
    newest, times = runner.engine, []
    try:
        for number in range(_SWAPS):
            started = time.perf_counter()
            newest = newest.with_norms((other, norms)[number % 2])
            times.append((time.perf_counter() - started) * 1e3)
            runner.take(newest)
    finally:
        runner.stop()
    if runner.failure is not None:
        raise EngineError(f"fails while norm parameters are exchanged: {runner.failure}")
    if runner.torn:
        raise EngineError(f"{runner.torn} of {runner.runs} outputs belong to neither set of norm parameters")
    return f"{_SWAPS} in {np.median(times):.0f} ms each, {runner.runs} runs meanwhile, no output torn"


class _Runner(threading.Thread):
    """Runs the engine that it was given last, and compares what comes out."""

    def __init__(self, engine: Engine, name: str, chip: Array, answers: list[dict[str, Array]]) -> None:
        super().__init__(name="acceptance")
        self.engine = engine
        self.runs = 0
        self.torn = 0
        self.failure: Exception | None = None
        self._name, self._chip, self._answers = name, chip, answers
        self._next: Engine | None = None
        self._taken = threading.Event()
        self._stopping = threading.Event()

    def take(self, engine: Engine) -> None:
        """Run ``engine`` from now on; returns when it does."""
        self._taken.clear()
        self._next = engine
        while self.is_alive() and not self._taken.wait(0.1):
            pass

    def stop(self) -> None:
        """End, and close the engine."""
        self._stopping.set()
        self.join()
        self.engine.close()

    def run(self) -> None:
        """Run until told to stop."""
        try:
            while not self._stopping.is_set():
                self._once()
        except Exception as error:
            self.failure = error

    def _once(self) -> None:
        if self._next is not None:
            self.engine.close()
            self.engine, self._next = self._next, None
            self._taken.set()
        outputs = self.engine.run({self._name: self._chip})
        self.runs += 1
        self.torn += not any(_same(outputs, answer) for answer in self._answers)


def _same(outputs: Mapping[str, Array], answer: Mapping[str, Array]) -> bool:
    return all(np.allclose(outputs[name], value, atol=_TOLERANCE) for name, value in answer.items())
