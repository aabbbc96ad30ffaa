"""Cameras come, go, stall and come back; frames keep their count, and nobody else notices."""

import http.server
import threading
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from agent.config import Camera
from agent.mailbox import Mailbox
from agent.perception.types import Frame
from agent.stages.camera import CameraStage

PATIENCE = 20.0  # for what must happen, however busy the machine


class StreamServer:
    """A network camera: motion JPEG over HTTP, on one port for all its lives."""

    def __init__(self) -> None:
        self.port = 0
        self._stalled = threading.Event()
        self._server: http.server.ThreadingHTTPServer | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/cabin.mjpg"

    def start(self) -> None:
        camera = self
        off = self._off = threading.Event()
        picture = cv2.imencode(".jpg", np.full((120, 160, 3), 128, np.uint8))[1].tobytes()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                head = (
                    f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
                )
                try:
                    while not off.wait(0.02):
                        if not camera._stalled.is_set():
                            self.wfile.write(head + picture + b"\r\n")
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._off.set()
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def stall(self, stalled: bool) -> None:
        """Keep the connection open, but say nothing."""
        (self._stalled.set if stalled else self._stalled.clear)()


@pytest.fixture
def server() -> Iterator[StreamServer]:
    made = StreamServer()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[CameraStage, Mailbox[Frame]]]]:
    """Starts camera stages, and sees that each of them stops within a second."""
    stages: list[CameraStage] = []

    def make(source, **settings) -> tuple[CameraStage, Mailbox[Frame]]:
        box = Mailbox[Frame]()
        name = f"camera{len(stages)}"
        stage = CameraStage(Camera(name=name, source=str(source), **settings), box)
        stages.append(stage)
        stage.start()
        return stage, box

    yield make
    for stage in stages:
        began = time.monotonic()
        stage.stop()
        assert stage.join(5)
        assert time.monotonic() - began < 1.5
        assert stage.failure is None


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def write_video(path, frames: int, fps: float) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 4 * i, np.uint8))
    writer.release()


def test_a_file_plays_at_its_own_rate_and_ends(tmp_path, start):
    write_video(tmp_path / "v.avi", frames=20, fps=25)
    began = time.monotonic()
    stage, box = start(tmp_path / "v.avi")
    frames = []
    while (frame := box.take(2)) is not None:
        frames.append(frame)
        if frame.index == 19:
            break
    assert time.monotonic() - began > 0.7  # nineteen periods are 0.76 s
    wait_until(lambda: not stage.alive)
    assert stage.health().state == "ended"
    assert stage.health().frames == 20
    assert not stage.failed_for_good
    assert len(frames) + box.dropped == 20
    times = [frame.captured for frame in frames]
    assert times == sorted(times)
    assert abs(frames[-1].utc - time.time()) < 60
    assert frames[0].camera == "camera0"


def test_a_file_of_which_every_frame_is_wanted_waits_for_a_slow_reader_and_its_frames_stay_fresh(
    tmp_path, start
):
    write_video(tmp_path / "v.avi", frames=12, fps=500)
    stage, box = start(tmp_path / "v.avi", every_frame=True)
    indexes = []
    for _ in range(12):
        time.sleep(0.25)
        frame = box.take(PATIENCE)
        assert time.monotonic() - frame.captured < 1
        indexes.append(frame.index)
    assert indexes == list(range(12))
    assert box.dropped == 0
    wait_until(lambda: stage.health().state == "ended")


def test_a_stop_does_not_wait_for_a_reader_that_takes_nothing(tmp_path, start):
    write_video(tmp_path / "v.avi", frames=12, fps=500)
    stage, _ = start(tmp_path / "v.avi", every_frame=True)
    wait_until(lambda: stage.health().frames == 1)  # the fixture measures the stop


def test_a_looped_file_counts_on(tmp_path, start):
    write_video(tmp_path / "v.avi", frames=5, fps=500)
    stage, box = start(tmp_path / "v.avi", every_frame=True, loop=True)
    assert [box.take(PATIENCE).index for _ in range(17)] == list(range(17))
    assert stage.health().reopened == 0


def test_the_rate_of_a_recording_can_be_set(tmp_path, start):
    write_video(tmp_path / "v.avi", frames=40, fps=1)
    stage, _ = start(tmp_path / "v.avi", fps=400)
    wait_until(lambda: stage.health().state == "ended")


def test_a_folder_of_images_is_a_camera_too(tmp_path, start):
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((10, 10), i, np.uint8))
    stage, box = start(tmp_path, every_frame=True)
    assert [int(box.take(PATIENCE).image.mean()) for _ in range(4)] == [0, 1, 2, 3]
    wait_until(lambda: stage.health().state == "ended")


def test_a_file_that_is_not_there_has_failed_for_good(tmp_path, start):
    stage, _ = start(tmp_path / "none.mp4")
    wait_until(lambda: not stage.alive)
    assert stage.failed_for_good
    assert stage.health().state == "failed"
    assert "none.mp4" in stage.health().error


def test_a_file_that_was_cut_off_plays_as_far_as_it_goes_and_then_says_so(tmp_path, start):
    write_video(tmp_path / "v.avi", frames=60, fps=30)
    data = (tmp_path / "v.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    stage, _ = start(tmp_path / "cut.avi", fps=400)
    wait_until(lambda: not stage.alive)
    assert stage.failed_for_good
    assert stage.health().frames > 10
    assert "of 60 frames" in stage.health().error


def test_a_device_that_is_not_there_is_tried_again_quietly(start, caplog):
    stage, _ = start("/dev/video77", retry_s=0.1)
    wait_until(lambda: stage.health().state == "failed")
    time.sleep(0.5)
    assert stage.alive
    assert not stage.failed_for_good
    assert stage.health().frames == 0
    assert len([record for record in caplog.records if "/dev/video77" in record.getMessage()]) == 1


def test_a_network_camera_that_goes_and_comes_back_is_opened_again_and_counts_on(server, start, tmp_path):
    write_video(tmp_path / "v.avi", frames=10, fps=50)
    other, _ = start(tmp_path / "v.avi", loop=True)
    stage, box = start(server.address, retry_s=0.3)
    wait_until(lambda: stage.health().frames >= 5)
    assert stage.health().state == "open"
    assert stage.health().error is None

    server.stop()
    wait_until(lambda: stage.health().state == "failed")
    assert "127.0.0.1" in stage.health().error
    others_before = other.health().frames
    wait_until(lambda: other.health().frames > others_before + 10)
    count = stage.health().frames
    while box.take(0) is not None:
        pass

    server.start()
    first = box.take(PATIENCE)
    assert first.index == count
    wait_until(lambda: stage.health().frames >= count + 5)
    health = stage.health()
    assert (health.state, health.error, health.reopened) == ("open", None, 1)
    assert other.health().reopened == 0


def test_a_network_camera_that_falls_silent_is_given_up_and_opened_again(server, start):
    stage, _ = start(server.address, stall_s=0.5, retry_s=0.3)
    wait_until(lambda: stage.health().frames >= 5)
    server.stall(True)
    wait_until(lambda: stage.health().state == "failed")
    server.stall(False)
    count = stage.health().frames
    wait_until(lambda: stage.health().frames >= count + 5)
    assert stage.health().reopened == 1


def test_a_silent_camera_can_be_stopped_at_once_and_leaves_no_crowd_of_threads(server, start):
    server.stall(True)
    before = threading.active_count()
    stage, _ = start(server.address, stall_s=0.3, retry_s=0.1)
    most = 0
    for _ in range(100):
        most = max(most, sum(" reader" in thread.name for thread in threading.enumerate()))
        time.sleep(0.02)
    assert most == 1
    assert stage.health().frames == 0
    assert threading.active_count() <= before + 4  # the stage, its reader, and the server's answers


def test_the_heart_beats_while_a_camera_is_silent(server, start):
    server.stall(True)
    stage, _ = start(server.address)
    for _ in range(10):
        time.sleep(0.1)
        assert stage.age(time.monotonic()) < 1
