import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Identity
from agent.gallery.threshold import in_force
from agent.gallery.types import Calibration
from engines.pack import FaceModel

FACE = FaceModel(
    file="face.onnx",
    sha256="0" * 64,
    licence="MIT",
    source="made for this test",
    side=150,
    template=((1, 1),) * 5,
    dim=128,
    labels=("a", "b"),
    threshold=0.92,
    threshold_basis="pairs",
    steps=((1, 0.93), (5, 0.94), (20, 0.95)),
)
MEASURED = Calibration(
    "f" * 64, 0.85, 1e-3, 1e-3, 0.97, (0.96, 0.98), "a test", steps=((2, 0.85), (10, 0.87))
)


@pytest.mark.parametrize(
    ("people", "value", "most"),
    [(0, 0.93, 1), (1, 0.93, 1), (2, 0.94, 5), (5, 0.94, 5), (6, 0.95, 20), (20, 0.95, 20), (21, 0.95, 20)],
)
def test_the_threshold_rises_with_the_people(people, value, most):
    found = in_force(Identity(), FACE, people, None)
    assert (found.value, found.source, found.most) == (value, "pack", most)
    assert found.outgrown == (people > 20)


def test_what_was_measured_for_the_gallery_goes_before_the_pack_and_the_configuration_before_both():
    measured = in_force(Identity(), FACE, 3, MEASURED)
    assert (measured.value, measured.source, measured.most) == (0.87, "calibration", 10)
    fixed = in_force(Identity(threshold=0.5), FACE, 3000, MEASURED)
    assert (fixed.value, fixed.source, fixed.outgrown) == (0.5, "identity.threshold", False)
    assert "identity.threshold" in fixed.words


def test_a_threshold_without_steps_is_good_for_one_person():
    bare = msgspec.structs.replace(FACE, steps=())
    assert in_force(Identity(), bare, 1, None).value == 0.92
    assert not in_force(Identity(), bare, 1, None).outgrown
    assert in_force(Identity(), bare, 2, None).outgrown
    old = Calibration("f" * 64, 0.85, 1e-3, 1e-3, 0.97, (0.96, 0.98), "a test")
    assert in_force(Identity(), FACE, 2, old).value == 0.85
    assert "at most 1 enrolled" in in_force(Identity(), FACE, 2, old).words


@given(st.dictionaries(st.integers(1, 10_000), st.floats(-1, 1), min_size=1), st.integers(0, 20_000))
def test_the_step_in_force_is_the_smallest_that_holds_everybody(steps, people):
    face = msgspec.structs.replace(FACE, steps=tuple(sorted(steps.items())))
    found = in_force(Identity(), face, people, None)
    assert found.value == steps[found.most]
    assert found.most == min((size for size in steps if size >= people), default=max(steps))
