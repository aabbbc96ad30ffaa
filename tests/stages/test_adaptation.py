"""The daemon adapts beside its work: no frame is lost, and whatever becomes of the worker, the daemon goes on."""

import io
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np
import psutil
import pytest
import zmq
from rich.console import Console

from agent import networks
from agent.adaptation.process import COMMAND
from agent.commands.status import describe
from agent.config import Config, parse
from agent.control import Done, GetStatus, Record, Recorded, ResetAdaptation, Status, request
from agent.daemon import Daemon
from agent.gallery.store import Gallery
from agent.gallery.types import Sample
from agent.live import Live
from agent.perception.chain import FaceReader
from agent.samples import clip
from agent.stage import Stage
from agent.stages.adaptation import AdaptationStage
from engines.model import read_model
from engines.norms import read_norms
from tests.integration.faults import Faults

SCALED = (sys.executable, str(Path(__file__).parents[1] / "adaptation" / "scaled_worker.py"))
PATIENCE_S = 60.0
EVERY_FACE = """
[quality]
min_eye_distance = 0
min_share = 0
min_sharpness = 0
min_brightness = 0
max_brightness = 255
min_contrast = 0
max_yaw = 90
max_pitch = 90
max_roll = 180
"""


def configured(folder: Path, pack, adaptation: str, camera: str = "") -> Config:
    source = (
        f'source = "{camera}"'
        if camera
        else f'source = "{clip()}"\nloop = true\nfps = 25\nevery_frame = true'
    )
    text = (
        f'pack = "{pack.path}"\n[[cameras]]\nname = "cabin"\n{source}\nretry_s = 0.3\n'
        f'[gallery]\npath = "{folder}/gallery.db"\n'
        f'[events]\nendpoint = "ipc://{folder}/e"\nhealth_s = 0.2\nqueue = 100000\nqueue_mb = 1000\n'
        f'[control]\nendpoint = "ipc://{folder}/c"\n[budget]\nframe_ms = 0\n[tracking]\nrefresh_s = 0\n'
        f"[identity]\nthreshold = 0.5\n[supervision]\nstall_s = 30\ndisk_s = 60\n{EVERY_FACE}\n"
        f"[adaptation]\nevery_s = 0.05\nduty = 1.0\n{adaptation}\n"
    )
    return parse(text.encode(), "test.toml")


class WithScaledWorker(Daemon):
    """The daemon with another program for its worker."""

    command: tuple[str, ...] = SCALED

    def _adaptation(self, _: Stage | None) -> AdaptationStage:
        return AdaptationStage(
            self._pack, self._live, self._outbox, self._camera_health, ["cabin"], self.command
        )


class Cabin:
    """A daemon in this process, and all that it says."""

    def __init__(self, config: Config, pack, command: tuple[str, ...]) -> None:
        self.config = config
        self.wanted = config
        with Gallery.open(config.gallery_path) as gallery:
            self.live = Live(gallery.snapshot(pack.manifest.digest))
        self.events: list[dict] = []
        self._ended = threading.Event()
        self._context = zmq.Context()
        socket = self._context.socket(zmq.SUB)
        socket.rcvhwm = 0
        socket.subscribe("")
        socket.connect(config.events_endpoint)
        self._listener = threading.Thread(target=self._listen, args=(socket,))
        self._listener.start()
        self.daemon = WithScaledWorker(config, pack, self.live, read=lambda: self.wanted)
        self.daemon.command = command
        self._thread = threading.Thread(target=self.daemon.run)
        self._thread.start()

    def _listen(self, socket: zmq.Socket) -> None:
        while not self._ended.is_set():
            if socket.poll(50):
                self.events.append(msgspec.json.decode(socket.recv_multipart()[1]))
        socket.close(linger=0)

    def told(self, topic: str, **values: object) -> list[dict]:
        return [
            event
            for event in list(self.events)
            if event["topic"] == topic and all(event[key] == value for key, value in values.items())
        ]

    def hears(self, topic: str, times: int = 1, **values: object) -> dict:
        """Wait until something was said so often."""
        self.wait_until(lambda: len(self.told(topic, **values)) >= times, f"no {topic} with {values}")
        return self.told(topic, **values)[times - 1]

    def wait_until(self, condition: Callable[[], object], otherwise: str = "it never came to that") -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert self._thread.is_alive(), "the daemon has ended"
            assert time.monotonic() < end, (
                f"{otherwise}: {self.told('adaptation')[-5:]} {self.daemon.notes()}"
            )
            time.sleep(0.02)

    @property
    def ready_worker(self) -> int | None:
        found = self.live.adaptation
        return found.worker if found and found.ready else None

    def ask(self, what, expect):
        return request(self.config.control_endpoint, what, expect, PATIENCE_S)

    def no_frame_was_lost(self) -> None:
        frames = [event["frame"] for event in self.told("face")]
        assert frames == list(range(frames[0], frames[0] + len(frames)))
        assert self.daemon.dropped_frames() == 0

    def close(self) -> None:
        self.daemon.stop()
        self._thread.join(PATIENCE_S)
        self._ended.set()
        self._listener.join()
        self._context.destroy(linger=0)
        assert not self._thread.is_alive()


@pytest.fixture
def start(tmp_path, pack, samples) -> Iterator[Callable[..., Cabin]]:
    """Starts a daemon, and sees that it ends and leaves no process behind."""
    made: list[Cabin] = []
    before = {process.pid for process in psutil.Process().children()}

    def one(
        adaptation: str = 'tier = "statistics"',
        fault: str = "",
        camera: str = "",
        *,
        bank: bool = True,
        program: tuple[str, ...] = SCALED,
    ) -> Cabin:
        command = (*program, fault) if fault else program
        manifest = pack.manifest if bank else msgspec.structs.replace(pack.manifest, adaptation=msgspec.UNSET)
        chosen = msgspec.structs.replace(pack, manifest=manifest)
        made.append(Cabin(configured(tmp_path, pack, adaptation, camera), chosen, command))
        return made[-1]

    yield one
    for each in made:
        each.close()
    assert {process.pid for process in psutil.Process().children()} <= before


def test_engine_after_engine_is_taken_between_two_frames_and_none_is_lost(start):
    cabin = start()
    event = cabin.hears("adaptation", times=6, state="adapted", accepted=True)
    assert event["reason"] == "better"
    assert event["tier"] == "statistics"
    assert event["layers"] == ["input"]
    assert event["figures"]["gain"] > 1
    assert event["decide_ms"] > 0
    assert event["build_ms"] > 0
    taken = [each["swap_ms"] for each in cabin.told("adaptation") if each["swap_ms"] is not None]
    assert taken
    health = cabin.hears("health", times=len(cabin.told("health")) + 1)["adaptation"]
    assert health["state"] == "adapted"
    assert health["worker"] == cabin.ready_worker
    assert health["accepted"] >= 6
    cabin.no_frame_was_lost()
    # Whatever was built, at most one is in use and one is offered.
    cabin.wait_until(lambda: len(cabin.live.face._made) <= 2)


def test_a_pack_without_a_norm_bank_starts_no_worker_and_says_so_once(start, caplog):
    cabin = start(bank=False)
    cabin.wait_until(lambda: any("no norm bank" in note for note in cabin.daemon.notes()), "no problem")
    cabin.hears("health", times=3)
    assert any("models fetch --force" in problem for problem in cabin.told("health")[-1]["problems"])
    assert cabin.told("health")[-1]["adaptation"] is None
    assert psutil.Process().children() == []
    assert sum("no norm bank" in record.getMessage() for record in caplog.records) == 1


def test_what_is_refused_for_the_same_reason_again_and_again_is_logged_once(start, caplog):
    caplog.set_level(logging.DEBUG)
    cabin = start(fault="refuses")
    cabin.hears("adaptation", times=2, accepted=False)
    levels = [record.levelno for record in caplog.records if ", refused;" in record.getMessage()]
    assert levels[:2] == [logging.INFO, logging.DEBUG]


def test_a_worker_killed_twenty_times_costs_no_frame_and_leaves_nothing_behind(start):
    cabin = start()
    cabin.wait_until(lambda: cabin.ready_worker)
    cabin.hears("face")
    process = psutil.Process()
    files: list[int] = []
    for time_ in range(20):
        pid = cabin.ready_worker
        frames = cabin.daemon.times.frames
        os.kill(pid, signal.SIGKILL)
        cabin.wait_until(lambda pid=pid: cabin.ready_worker not in (None, pid), "no other worker")
        cabin.wait_until(lambda frames=frames: cabin.daemon.times.frames > frames, "no frame")
        assert not psutil.pid_exists(pid)
        if time_ >= 2:
            files.append(process.num_fds())
        assert len(process.children()) == 1
    assert cabin.live.adaptation.restarts == 20
    assert max(files[-5:]) <= max(files[:5])
    cabin.hears("adaptation", times=20, reason="reset:worker")
    cabin.hears("adaptation", times=len(cabin.told("adaptation", state="adapted")) + 1, state="adapted")
    cabin.no_frame_was_lost()
    assert cabin.daemon.restarts == {}


def test_a_worker_that_stands_still_is_replaced_and_the_source_runs_meanwhile(start):
    cabin = start('tier = "statistics"\nhang_s = 1.0')
    cabin.hears("adaptation", state="adapted")
    pid = cabin.ready_worker
    os.kill(pid, signal.SIGSTOP)
    assert cabin.hears("adaptation", reason="reset:worker")["state"] == "source"
    assert not psutil.pid_exists(pid)
    cabin.wait_until(lambda: cabin.ready_worker not in (None, pid))
    cabin.no_frame_was_lost()


@pytest.mark.parametrize("fault", ["not finite", "another size", "unknown name"])
def test_what_cannot_be_is_refused_and_told(start, fault):
    cabin = start(fault=fault)
    event = cabin.hears("adaptation", reason="invalid")
    assert not event["accepted"]
    assert event["state"] == "source"
    cabin.hears("adaptation", reason="reset:worker")
    cabin.wait_until(lambda: any("proposed what cannot be" in each for each in cabin.daemon.notes()))
    assert cabin.told("adaptation", state="adapted") == []
    assert cabin.live.face.in_use is None
    cabin.no_frame_was_lost()


def test_a_refusal_is_told_with_its_numbers_and_changes_nothing(start):
    cabin = start(fault="refuses")
    event = cabin.hears("adaptation", reason="no_gain")
    assert (event["accepted"], event["state"], event["layers"]) == (False, "source", [])
    assert event["figures"]["gain"] > 0
    assert cabin.live.face.in_use is None


def test_what_no_decision_confirms_does_not_stay(start):
    cabin = start('tier = "statistics"\nmax_away_s = 1.0', fault="decides once")
    cabin.hears("adaptation", state="adapted")
    event = cabin.hears("adaptation", reason="reset:stale")
    assert (event["accepted"], event["state"], event["layers"]) == (True, "source", [])
    cabin.wait_until(lambda: cabin.live.face.in_use is None and not cabin.live.face._made)


def test_who_asks_for_the_source_gets_it_and_it_adapts_anew(start):
    cabin = start()
    cabin.hears("adaptation", state="adapted")
    cabin.ask(ResetAdaptation(), Done)
    reset = cabin.hears("adaptation", reason="reset:request")
    assert reset["state"] == "source"
    after = len(cabin.told("adaptation", state="adapted"))
    cabin.hears("adaptation", times=after + 1, state="adapted")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", ["adaptation", "perception"])
def test_a_stage_that_fails_while_it_adapts_is_followed_by_one_that_begins_at_the_source(start, name):
    cabin = start()
    cabin.hears("adaptation", state="adapted")
    struck, slot = cabin.daemon._stages[name], cabin.live.face
    # Struck in the middle of a turn, nothing that it has in hand may stay behind.
    Faults().strike(struck._thread, RuntimeError)
    cabin.wait_until(lambda: cabin.daemon._stages[name] is not struck)
    after = len(cabin.told("adaptation"))
    cabin.wait_until(lambda: any(event["state"] == "adapted" for event in cabin.told("adaptation")[after:]))
    assert cabin.daemon.restarts == {name: 1}
    assert len(psutil.Process().children()) == 1
    if name == "perception":
        assert cabin.hears("adaptation", reason="reset:perception")["state"] == "source"
        assert slot.empty
        assert cabin.live.face is not slot


def test_a_camera_that_is_opened_again_begins_anew(start, network_camera, images):
    network_camera.show(*(cv2.resize(image, (352, 288)) for image in images[:20]))
    cabin = start(camera=network_camera.address)
    cabin.hears("adaptation", state="adapted")
    network_camera.stop()
    cabin.wait_until(lambda: cabin.daemon.cameras[0].health().state == "failed")
    network_camera.start()
    assert cabin.hears("adaptation", reason="reset:camera")["state"] == "source"
    after = len(cabin.told("adaptation", state="adapted"))
    cabin.hears("adaptation", times=after + 1, state="adapted")


def test_the_gradient_tier_changes_over_in_the_dark_learns_and_goes_back_when_asked(
    start, network_camera, images
):
    pytest.importorskip("torch")
    noise = np.random.default_rng(0)
    dark = (0.12 * image + noise.normal(0, 4, image.shape) for image in images[:20])
    network_camera.show(*(np.clip(image, 0, 255).astype(np.uint8) for image in dark))
    learnt = 'tier = "gradient"\n[adaptation.gradient]\nbatch = 2\nsteps = 1\nrate = 0.012'
    cabin = start(learnt, camera=network_camera.address, program=COMMAND)
    event = cabin.hears("adaptation", state="adapted", accepted=True)
    assert (event["tier"], event["reason"]) == ("gradient", "better")
    assert event["figures"]["dark"] > 0.9
    cabin.wait_until(lambda: any("drift" in each["figures"] for each in cabin.told("adaptation")), "no step")
    assert cabin.live.adaptation.tier == "gradient"
    cabin.ask(ResetAdaptation(), Done)
    assert cabin.hears("adaptation", reason="reset:request")["state"] == "source"
    after = len(cabin.told("adaptation", state="adapted"))
    cabin.hears("adaptation", times=after + 1, state="adapted")
    assert cabin.daemon.restarts == {}


def test_people_and_prometheus_are_told_how_the_adaptation_is(start):
    cabin = start()
    cabin.hears("adaptation", state="adapted")
    cabin.wait_until(lambda: cabin.live.health.adaptation and cabin.live.health.adaptation.state == "adapted")
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(describe(cabin.ask(GetStatus(), Status)))
    line = rf"adaptation statistics: adapted for \d+ s, worker {cabin.ready_worker}, 0 restarts; .*, last: better"
    assert re.search(line, console.export_text())
    pytest.importorskip("prometheus_client")
    from agent.metrics import Exposition

    figures = Exposition(cabin.live, cabin.daemon.times).text().decode()
    assert "cabinsense_adapted 1.0" in figures
    assert "cabinsense_adaptation_worker_up 1.0" in figures
    assert 'cabinsense_adaptation_decisions_total{outcome="reset"} 0.0' in figures


def decided_anew(cabin: Cabin, margin: float) -> None:
    """Another lead is asked for, so that who everybody is is decided anew."""
    identity = msgspec.structs.replace(cabin.wanted.identity, margin=margin)
    cabin.wanted = msgspec.structs.replace(cabin.wanted, identity=identity)
    cabin.daemon.reload()


def test_whoever_is_seen_by_an_adapted_network_is_judged_by_the_raised_threshold(start):
    cabin = start(fault="raises the threshold")
    assert cabin.hears("adaptation", state="adapted")["rise"] == 0.25
    cabin.wait_until(lambda: cabin.live.face.rise == 0.25)
    decided_anew(cabin, 0.011)
    cabin.hears("identity", threshold=0.625)  # 0.5 and a quarter of the way from there to 1
    cabin.wait_until(lambda: cabin.live.health.adaptation and cabin.live.health.adaptation.rise == 0.25)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(describe(cabin.ask(GetStatus(), Status)))
    assert "identity threshold raised by 25% of the way to 1" in console.export_text()
    off = msgspec.structs.replace(cabin.wanted.adaptation, tier="off")
    cabin.wanted = msgspec.structs.replace(cabin.wanted, adaptation=off)
    cabin.daemon.reload()
    assert cabin.hears("adaptation", reason="reset:settings")["rise"] == 0.0
    cabin.wait_until(lambda: cabin.live.face.in_use is None)
    assert cabin.live.face.rise == 0
    before = len(cabin.told("identity", threshold=0.5))
    decided_anew(cabin, 0.012)
    cabin.hears("identity", times=before + 1, threshold=0.5)
    cabin.no_frame_was_lost()


def test_without_a_rise_people_are_judged_as_ever(start):
    cabin = start()
    assert cabin.hears("adaptation", state="adapted")["rise"] == 0.0
    cabin.wait_until(lambda: cabin.live.face.in_use is not None)
    before = len(cabin.told("identity", threshold=0.5))
    decided_anew(cabin, 0.011)
    cabin.hears("identity", times=before + 1, threshold=0.5)
    assert {event["threshold"] for event in cabin.told("identity")} <= {0.5, None}


def test_it_is_turned_on_and_off_while_the_daemon_runs(start):
    cabin = start('tier = "off"')
    cabin.hears("face", times=5)
    assert "adaptation" not in [post.name for post in cabin.daemon.posts]
    assert not cabin.live.adapting.is_set()
    assert psutil.Process().children() == []
    assert all(event["adaptation"] is None for event in cabin.told("health"))
    assert cabin.told("adaptation") == []

    off = cabin.wanted
    on = msgspec.structs.replace(off.adaptation, tier="statistics")
    cabin.wanted = msgspec.structs.replace(off, adaptation=on)
    cabin.daemon.reload()
    cabin.hears("adaptation", state="adapted")
    cabin.wanted = off
    cabin.daemon.reload()
    assert cabin.hears("adaptation", reason="reset:settings")["state"] == "source"
    cabin.wait_until(lambda: not psutil.Process().children())
    cabin.wait_until(lambda: cabin.live.face.in_use is None and not cabin.live.face._made)
    assert not cabin.live.adapting.is_set()
    cabin.no_frame_was_lost()


def each_sample(samples: Sequence[Sample]) -> np.ndarray:
    """A template for each sample."""
    return np.stack([sample.embedding for sample in samples])


def embeddings(reader: FaceReader, images: list[np.ndarray]) -> np.ndarray:
    """Of the largest face of each image that has one: float32 [faces, dim]."""
    return np.stack(
        [
            reader.look(image, found[0]).embedding
            for image in images
            if (found := reader.find(image, coarse=False))
        ]
    )


@pytest.fixture(scope="module")
def images(samples) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(clip()))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    capture.release()
    return frames


def test_who_is_recorded_while_it_adapts_is_recorded_by_the_source(start, pack, images):
    cabin = start()
    cabin.hears("adaptation", state="adapted")
    cabin.ask(Record(name="Ada", seconds=2.0), Recorded)
    reset = cabin.hears("adaptation", reason="reset:recording")
    assert reset["state"] == "source"
    with Gallery.open(cabin.config.gallery_path) as gallery:
        enrolled = gallery.snapshot(pack.manifest.digest, each_sample).templates
    assert len(enrolled) > 2

    models = networks.load(pack, cabin.config)
    reader = FaceReader(models, cabin.config, time.monotonic)
    by_source = embeddings(reader, images)
    with_norms = models.face.with_norms({"norm.input.scale": cabin_scale(pack, 1.7)})
    reader.use_face(with_norms)
    by_adapted = embeddings(reader, images)
    with_norms.close()
    models.close()
    assert (enrolled @ by_source.T).max(axis=1).min() > 0.99999
    assert (enrolled @ by_adapted.T).max(axis=1).max() < 0.9999
    # Once that is over, it adapts again.
    after = len(cabin.told("adaptation", state="adapted"))
    cabin.hears("adaptation", times=after + 1, state="adapted")
    cabin.no_frame_was_lost()


def test_the_perception_thread_itself_sees_to_it_that_a_recording_gets_the_source(start, pack, images):
    """Whatever is offered, and however late the adaptation thread is: here there is none."""
    cabin = start('tier = "off"')
    cabin.hears("face")
    slot, live = cabin.live.face, cabin.live
    slot.offer(slot.source.with_norms({"norm.input.scale": cabin_scale(pack, 1.7)}))
    cabin.wait_until(lambda: slot.in_use is not None)
    live.recording.set()
    cabin.wait_until(lambda: len(live.readings) > 8)
    readings = [live.readings.take(0) for _ in range(8)]
    assert slot.in_use is None
    seen = [face.embedding for reading in readings for face in reading.faces if face.embedding is not None]
    models = networks.load(pack, cabin.config)
    by_source = embeddings(FaceReader(models, cabin.config, time.monotonic), images)
    models.close()
    assert len(seen) > 4
    assert (np.stack(seen) @ by_source.T).max(axis=1).min() > 0.99999
    live.recording.clear()
    cabin.wait_until(lambda: slot.in_use is not None)


def test_after_an_adaptation_every_output_is_as_before_to_the_last_bit(pack, images):
    models = networks.load(pack, Config())
    reader = FaceReader(models, Config(), time.monotonic)
    before = embeddings(reader, images[:20])
    adapted = models.face.with_norms({"norm.input.scale": cabin_scale(pack, 1.3)})
    reader.use_face(adapted)
    assert not np.array_equal(embeddings(reader, images[:20]), before)
    reader.use_face(models.face)
    adapted.close()
    assert np.array_equal(embeddings(reader, images[:20]), before)
    models.close()


def cabin_scale(pack, gain: float) -> np.ndarray:
    return read_norms(read_model(pack.face))["norm.input.scale"] * np.float32(gain)
