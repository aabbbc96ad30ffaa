"""A sensor on a CSI connector is named by its number, and read through a pipeline. None has been tried on a board."""

import cv2
import pytest

from agent import csi
from agent.capture import CaptureError, open_source
from agent.config import Camera


def test_the_pipeline_says_what_the_configuration_asks_for():
    stages = csi.pipeline(1, 1920, 1080, 60).split(" ! ")
    assert stages[0] == "nvarguscamerasrc sensor-id=1"
    assert "width=(int)1920, height=(int)1080, framerate=(fraction)60/1" in stages[1]
    assert stages[-1].startswith("appsink drop=true max-buffers=1")


def test_what_is_left_open_is_a_mode_that_sensors_have():
    assert "width=(int)1280, height=(int)720, framerate=(fraction)30/1" in csi.pipeline(0, 0, 0, 0)


@pytest.mark.parametrize(("fps", "fraction"), [(29.97, "2997/100"), (25, "25/1"), (7.5, "15/2")])
def test_rates_are_fractions_as_gstreamer_wants_them(fps, fraction):
    assert f"framerate=(fraction){fraction} !" in csi.pipeline(0, 0, 0, fps)


def test_nothing_of_a_source_gets_into_a_pipeline_but_a_number():
    assert csi.sensor("csi://3") == 3
    for source in (
        "csi://",
        "csi://a",
        "csi://0 ! filesink location=x",
        "csi://-1",
        "csi://0\n",
        "csi://٣",
        "csi:0",
    ):
        assert csi.sensor(source) is None


def test_a_sensor_that_is_no_number_is_refused_for_good():
    with pytest.raises(CaptureError, match="csi://0") as caught:
        open_source(Camera(name="cabin", source="csi://front"))
    assert caught.value.lasting


@pytest.mark.skipif(
    cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER), reason="this OpenCV was built with GStreamer"
)
def test_without_gstreamer_the_sensor_is_named_and_not_the_pipeline():
    with pytest.raises(CaptureError, match=r"^csi://0: this OpenCV was built without GStreamer") as caught:
        open_source(Camera(name="cabin", source="csi://0"))
    assert caught.value.lasting
