"""Cameras come, go, stall and come back; frames keep their count, and nobody else notices."""

import threading
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import psutil
import pytest

from agent.config import Camera
from agent.mailbox import Mailbox
from agent.perception.types import Frame
from agent.stages.camera import CameraStage

PATIENCE = 20.0  # for what must happen, however busy the machine


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[CameraStage, Mailbox[Frame]]]]:
    """Starts camera stages, and sees that each of them stops within a second."""
    stages: list[CameraStage] = []

    def make(source, room: int = 1, **settings) -> tuple[CameraStage, Mailbox[Frame]]:
        box = Mailbox[Frame](room)
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


def test_a_network_camera_that_goes_and_comes_back_is_opened_again_and_counts_on(
    network_camera, start, tmp_path
):
    write_video(tmp_path / "v.avi", frames=10, fps=50)
    other, _ = start(tmp_path / "v.avi", loop=True)
    stage, box = start(
        network_camera.address, retry_s=0.3, room=10_000
    )  # so that no frame is replaced unseen
    wait_until(lambda: stage.health().frames >= 5)
    assert stage.health().state == "open"
    assert stage.health().error is None

    network_camera.stop()
    wait_until(lambda: stage.health().state == "failed")
    assert "127.0.0.1" in stage.health().error
    others_before = other.health().frames
    wait_until(lambda: other.health().frames > others_before + 10)
    count = stage.health().frames
    while box.take(0) is not None:
        pass

    network_camera.start()
    first = box.take(PATIENCE)
    assert first.index == count
    wait_until(lambda: stage.health().frames >= count + 5)
    health = stage.health()
    assert (health.state, health.error, health.reopened) == ("open", None, 1)
    assert other.health().reopened == 0


def test_a_network_camera_that_falls_silent_is_given_up_and_opened_again(network_camera, start):
    stage, _ = start(network_camera.address, stall_s=0.5, retry_s=0.3)
    wait_until(lambda: stage.health().frames >= 5)
    network_camera.stall(True)
    wait_until(lambda: stage.health().state == "failed")
    network_camera.stall(False)
    count = stage.health().frames
    wait_until(lambda: stage.health().frames >= count + 5)
    assert stage.health().reopened == 1


def test_a_silent_camera_can_be_stopped_at_once_and_leaves_no_crowd_of_threads(network_camera, start):
    network_camera.stall(True)
    before = threading.active_count()
    stage, _ = start(network_camera.address, stall_s=0.3, retry_s=0.1)
    most = 0
    for _ in range(100):
        most = max(most, sum(" reader" in thread.name for thread in threading.enumerate()))
        time.sleep(0.02)
    assert most == 1
    assert stage.health().frames == 0
    assert threading.active_count() <= before + 4  # the stage, its reader, and the server's answers


def test_the_heart_beats_while_a_camera_is_silent(network_camera, start):
    network_camera.stall(True)
    stage, _ = start(network_camera.address)
    for _ in range(10):
        time.sleep(0.1)
        assert stage.age(time.monotonic()) < 1


def test_a_covered_lens_is_no_failure_but_is_told_until_it_is_uncovered(network_camera, start, caplog):
    clear = network_camera.pictures
    stage, box = start(network_camera.address)
    wait_until(lambda: stage.health().frames >= 5)
    assert (stage.health().view, box.take(PATIENCE).blind) == ("clear", False)

    network_camera.show(np.full((120, 160, 3), 12, np.uint8))
    wait_until(lambda: stage.health().view == "covered")
    assert stage.health().state == "open"
    box.take(PATIENCE)
    assert box.take(PATIENCE).blind
    assert "uncover the lens" in caplog.text

    network_camera.show(*clear)
    wait_until(lambda: stage.health().view == "clear")
    box.take(PATIENCE)
    assert not box.take(PATIENCE).blind


def test_a_camera_that_shows_the_same_picture_for_ever_is_frozen(network_camera, start):
    one, another, *_ = network_camera.pictures
    network_camera.show(one)
    stage, _ = start(network_camera.address, frozen_s=0.5)
    wait_until(lambda: stage.health().view == "frozen")
    network_camera.show(one, another)
    wait_until(lambda: stage.health().view == "clear")


def test_a_recording_of_a_still_scene_is_not_frozen(tmp_path, start):
    cv2.imwrite(str(tmp_path / "still.png"), np.arange(4800, dtype=np.uint8).reshape(60, 80))
    stage, _ = start(tmp_path, fps=50, loop=True, frozen_s=0.1)
    wait_until(lambda: stage.health().frames > 50)
    assert stage.health().view == "clear"


def test_five_cameras_unplugged_ten_times_each_come_back_within_three_seconds_and_leak_nothing(
    network_cameras, start
):
    cameras = [network_cameras() for _ in range(5)]
    stages = [start(camera.address)[0] for camera in cameras]
    process = psutil.Process()

    def used() -> tuple[int, int]:
        wait_until(lambda: not any(camera.connections > 1 for camera in cameras))
        return threading.active_count(), process.num_fds()

    def unplug_and_replug() -> float:
        """The longest time that a camera was away after it had been plugged in again."""
        for camera in cameras:
            camera.stop()
        wait_until(lambda: all(stage.health().state == "failed" for stage in stages))
        counts = [stage.health().frames for stage in stages]
        began = time.monotonic()
        for camera in cameras:
            camera.start()
        wait_until(
            lambda: all(stage.health().frames > count for stage, count in zip(stages, counts, strict=True))
        )
        return time.monotonic() - began

    wait_until(lambda: all(stage.health().frames for stage in stages))
    for _ in range(2):
        unplug_and_replug()  # what is allocated once, is allocated now
    threads, files = used()
    memory = process.memory_info().rss
    away = [unplug_and_replug() for _ in range(8)]
    assert max(away) < 3, away
    assert used() == (threads, files)
    assert process.memory_info().rss - memory < 8 * 2**20
    for stage in stages:
        assert stage.health().reopened == 10
