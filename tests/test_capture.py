"""Every kind of source is opened, read to its end, or refused with its name and the remedy."""

import logging
import struct
from itertools import islice

import cv2
import numpy as np
import pytest

from agent.capture import CaptureError, bgr, label, open_source
from agent.config import Camera

FRAMES = 50


def write_video(path, frames: int = FRAMES, fps: float = 25, code: str = "MJPG") -> None:
    """A video whose n-th frame has the grey level 4 n."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, (160, 120))
    assert writer.isOpened()
    for i in range(frames):
        writer.write(np.full((120, 160, 3), 4 * i, np.uint8))
    writer.release()


def camera(source, **settings) -> Camera:
    return Camera(name="cabin", source=str(source), **settings)


def frames(source):
    while (image := source.read()) is not None:
        yield image


def read_all(source, limit: int = 1000) -> list:
    return list(islice(frames(source), limit))


def grey(image) -> int:
    return round(float(image.mean()) / 4)


@pytest.mark.parametrize(
    ("name", "code"), [("v.avi", "MJPG"), ("v.mp4", "mp4v"), ("v.mkv", "mp4v"), ("v.mkv", "MJPG")]
)
def test_a_whole_video_is_read_to_its_end_in_order(tmp_path, name, code):
    write_video(tmp_path / name, code=code)
    source = open_source(camera(tmp_path / name))
    assert not source.live
    assert source.fps == pytest.approx(25)
    images = read_all(source)
    assert len(images) == FRAMES
    assert all(abs(grey(image) - i) <= 1 for i, image in enumerate(images))  # MPEG-4 is not exact
    assert images[0].shape == (120, 160, 3)
    assert source.read() is None
    source.close()


def test_the_sample_clip_is_whole(samples):
    clips = sorted(samples.rglob("*.mp4"))
    assert clips
    source = open_source(camera(clips[0]))
    assert len(read_all(source)) == 120
    source.close()


def test_a_video_in_a_loop_starts_again(tmp_path):
    write_video(tmp_path / "v.avi", frames=5)
    source = open_source(camera(tmp_path / "v.avi", loop=True))
    assert [grey(source.read()) for _ in range(12)] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    source.close()


def test_a_video_that_was_cut_off_is_read_as_far_as_it_goes_then_told(tmp_path):
    write_video(tmp_path / "whole.avi")
    data = (tmp_path / "whole.avi").read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(data[: len(data) // 2])
    source = open_source(camera(cut))
    images: list = []
    with pytest.raises(CaptureError, match=r"cut\.avi: ends after \d+ of 50 frames") as caught:
        images.extend(frames(source))
    assert 10 < len(images) < 30
    assert caught.value.lasting
    source.close()


def test_a_cut_video_in_a_loop_goes_on_and_is_told_once(tmp_path, caplog):
    write_video(tmp_path / "whole.avi")
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    source = open_source(camera(tmp_path / "cut.avi", loop=True))
    with caplog.at_level(logging.WARNING):
        assert len(read_all(source, limit=100)) == 100
    assert len(caplog.records) == 1
    source.close()


def test_an_mp4_without_its_index_is_refused(tmp_path):
    write_video(tmp_path / "whole.mp4", code="mp4v")
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(CaptureError, match=r"cut\.mp4.*cut off"):
        open_source(camera(tmp_path / "cut.mp4"))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("missing.mp4", None, "no such file"),
        ("empty.mp4", b"", "empty"),
        ("letter.mp4", b"Dear Sir or Madam,\n" * 500, "not a video"),
        ("noise.avi", b"RIFF" + struct.pack("<I", 4000) + b"AVI " + bytes(range(256)) * 16, "noise.avi"),
    ],
)
def test_a_file_that_is_no_video_is_refused_for_good(tmp_path, name, content, told, capfd):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CaptureError, match=name) as caught:
        read_all(open_source(camera(tmp_path / name)))
    assert told in str(caught.value)
    assert caught.value.lasting
    assert not capfd.readouterr().err  # neither OpenCV nor FFmpeg speaks beside us


def test_a_folder_gives_its_images_by_name_and_tells_what_it_skips(tmp_path, caplog):
    for i in (2, 0, 1):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((10, 10), 4 * i, np.uint8))
    (tmp_path / "notes.txt").write_text("about these images")
    (tmp_path / "0a.jpg").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "subfolder").mkdir()
    with caplog.at_level(logging.WARNING):
        source = open_source(camera(tmp_path, loop=True, fps=5))
        assert [grey(source.read()) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert source.fps == 5
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "0a.jpg: the file is empty" in told[0]
    assert "notes.txt" in told[1]
    once = open_source(camera(tmp_path))
    assert len(read_all(once)) == 3


def test_a_folder_without_an_image_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("none here")
    with pytest.raises(CaptureError, match="no image") as caught:
        open_source(camera(tmp_path))
    assert caught.value.lasting


def test_a_folder_whose_images_vanish_ends_instead_of_searching_for_ever(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4), np.uint8))
    source = open_source(camera(tmp_path, loop=True))
    source.read()
    (tmp_path / "a.png").unlink()
    with pytest.raises(CaptureError, match="gone"):
        source.read()


@pytest.mark.parametrize("source", ["/dev/video77", "77"])
def test_a_device_that_is_not_there_is_waited_for(source):
    with pytest.raises(CaptureError, match="/dev/video77: no such device") as caught:
        open_source(camera(source))
    assert not caught.value.lasting


def test_a_device_that_is_no_camera_is_told():
    with pytest.raises(CaptureError, match="/dev/null: cannot be opened as a camera"):
        open_source(camera("/dev/null"))


@pytest.mark.skipif(
    cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER), reason="this OpenCV was built with GStreamer"
)
def test_a_pipeline_needs_an_opencv_with_gstreamer_and_says_so():
    with pytest.raises(CaptureError, match="built without GStreamer") as caught:
        open_source(camera("videotestsrc ! videoconvert ! appsink"))
    assert caught.value.lasting


def test_a_file_may_have_an_exclamation_mark_in_its_name(tmp_path):
    write_video(tmp_path / "look!.avi", frames=3)
    assert len(read_all(open_source(camera(tmp_path / "look!.avi")))) == 3


def test_an_address_that_gives_no_video_is_tried_again_and_its_password_is_never_shown():
    with pytest.raises(CaptureError, match=r"rtsp://127\.0\.0\.1:1/cabin") as caught:
        open_source(camera("rtsp://driver:s3cr3t@127.0.0.1:1/cabin"))
    assert "s3cr3t" not in str(caught.value)
    assert not caught.value.lasting


def test_an_unknown_kind_of_address_is_refused_for_good():
    with pytest.raises(CaptureError, match="gopher://") as caught:
        open_source(camera("gopher://127.0.0.1/1"))
    assert caught.value.lasting


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/dev/video0", "/dev/video0"),
        ("me@home.mp4", "me@home.mp4"),
        ("rtsp://10.0.0.7/live", "rtsp://10.0.0.7/live"),
        ("rtsp://u:p@ss@10.0.0.7/live@1", "rtsp://10.0.0.7/live@1"),
        (
            "rtspsrc location=rtsp://u:p@h/x user-pw=p ! appsink",
            "rtspsrc location=rtsp://h/x user-pw=… ! appsink",
        ),
    ],
)
def test_a_source_is_shown_without_its_password(source, shown):
    assert label(source) == shown


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 1), (6, 8, 3), (6, 8, 4)])
def test_infrared_and_padded_frames_become_bgr(shape):
    assert bgr(np.full(shape, 9, np.uint8)).shape == (6, 8, 3)
