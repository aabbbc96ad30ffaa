"""The first gate: is this face good enough to say who it is?"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.config import Quality as Limits
from agent.perception.types import Float32, Image, Pose, Quality

# The five landmarks of a frontal face in millimetres; x to the right of the image, y down, z away from the camera.
# x and y are dlib's mean face (the frontal template of its chips) scaled to 63 mm between the pupils, the adult mean of
# ANSUR II (Gordon et al. 2014); the nose is set 2 mm lower, where this detector marks it, so that the faces of LFW look
# straight ahead on average. z: the tip of the nose stands about 30 mm before the pupils, the corners of the mouth
# 5 mm.
_MODEL = np.array([[-31.5, 0, 0], [31.5, 0, 0], [0, 37.7, -30], [-28.1, 67.2, -5], [28.1, 67.2, -5]])
_FIT = np.linalg.pinv(_MODEL - _MODEL.mean(axis=0))


def head_pose(landmarks: Float32) -> Pose:
    """Head pose from five landmarks, by a scaled orthographic fit of a mean face.

    The first step ("POS") of DeMenthon and Davis, "Model-based object pose in 25 lines of code" (IJCV 1995): the
    rows of the rotation are the least-squares map from the model to the image.

    Args:
        landmarks: float32 [5, 2], pixels.
    """
    right, down = _axes(landmarks)
    right_length, down_length = np.linalg.norm(right), np.linalg.norm(down)
    if right_length < 1e-6 or down_length < 1e-6:
        return Pose(90.0, 0.0, 0.0)  # all landmarks on one line: seen from the side, or not a face
    right, down = right / right_length, down / down_length
    forward_z = right[0] * down[1] - right[1] * down[0]
    yaw = np.arctan2(-right[2], forward_z)
    pitch = np.arctan2(down[2], np.hypot(right[2], forward_z))
    roll = np.arctan2(down[0], right[0])
    # ``down[0]`` is the drop of the image's y along the model's x axis: the slope of the line of the eyes.
    return Pose(float(np.degrees(yaw)), float(np.degrees(pitch)), float(np.degrees(roll)))


def apparent_width(landmarks: Float32) -> float:
    """How wide a face looks for its height; 1 straight ahead, on average, and falling with the cosine of a turn.

    The second witness of a turn, beside ``head_pose``. Of a face in profile the detector often sets landmarks as if it
    were frontal but narrow: the nose betrays no turn then, the width does.

    Args:
        landmarks: float32 [5, 2], pixels.
    """
    right, down = _axes(landmarks)
    return float(np.hypot(right[0], right[1]) / max(float(np.linalg.norm(down)), 1e-6))


def _axes(landmarks: Float32) -> NDArray[np.float64]:
    """The model's x and y axes, each as seen along x, y and z, in pixels a millimetre: float64 [2, 3]."""
    points = landmarks.astype(np.float64)
    axes: NDArray[np.float64] = (_FIT @ (points - points.mean(axis=0))).T
    return axes


class QualityGate:
    """Measures chips and names what is wrong with them; its scratch memory is allocated once."""

    def __init__(self, limits: Limits, side: int) -> None:
        """A gate for chips of ``side`` pixels."""
        self._limits = limits
        self._narrowest = math.cos(math.radians(limits.max_yaw))
        self._luma = np.empty((side, side), np.uint8)
        self._edges = np.empty((side, side), np.int16)

    def measure(self, chip: Image, landmarks: Float32, longer: int) -> Quality:
        """The quality of an aligned face.

        Args:
            chip: uint8 BGR [side, side, 3].
            landmarks: float32 [5, 2] in frame pixels, from which the chip was cut.
            longer: the longer side of the frame, pixels.
        """
        cv2.cvtColor(chip, cv2.COLOR_BGR2GRAY, dst=self._luma)
        cv2.Laplacian(self._luma, cv2.CV_16S, dst=self._edges, ksize=1)
        brightness, contrast = (float(v[0, 0]) for v in cv2.meanStdDev(self._luma))
        sharpness = float(cv2.meanStdDev(self._edges)[1][0, 0]) ** 2
        size = float(np.hypot(*(landmarks[1] - landmarks[0])))
        pose = head_pose(landmarks)
        limits = self._limits
        turned = (
            abs(pose.yaw) > limits.max_yaw
            or abs(pose.pitch) > limits.max_pitch
            or abs(pose.roll) > limits.max_roll
            or apparent_width(landmarks) < self._narrowest
        )
        checks = (
            ("too_small", size < max(limits.min_eye_distance, limits.min_share * longer)),
            ("too_dark", brightness < limits.min_brightness),
            ("too_bright", brightness > limits.max_brightness),
            ("low_contrast", contrast < limits.min_contrast),
            ("blurred", sharpness < limits.min_sharpness),
            ("turned_away", turned),
        )
        reasons = tuple(code for code, wrong in checks if wrong)
        return Quality(size, sharpness, brightness, contrast, pose, reasons)
