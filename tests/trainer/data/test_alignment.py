import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.faces import scaled
from calibration.fer2013 import CHIP_FROM_IMAGE, LANDMARKS, TEMPLATE
from trainer.data.alignment import alike, insightface, upright


def test_insightfaces_points_keep_their_place_in_a_picture_of_another_size():
    small, large = insightface(112), insightface(224)
    assert small[0] == pytest.approx([38.2946, 51.6963])
    assert np.allclose(
        (large + 0.5) / 2, small + 0.5, atol=1e-4
    )  # from the edge, half a pixel before the first middle


def test_the_packs_template_is_not_insightfaces_and_a_slightly_larger_one_is_the_same(pack):
    face = pack.manifest.face
    own = scaled(face.template, face.side, 112)
    assert not alike(own, insightface(112), 112)
    assert alike(own, scaled(TEMPLATE, 150, 112), 112)
    assert alike((own - 55.5) * 1.05 + 55.5, own, 112)


@given(st.floats(0.2, 5), st.floats(-50, 50), st.floats(-50, 50))
def test_a_template_of_another_size_and_place_is_met(scale, x, y):
    points = insightface(112)
    matrix = upright(points, np.asarray(points * scale + (x, y), np.float32))
    assert np.allclose(matrix, [[scale, 0, x], [0, scale, y]], atol=1e-3)


def test_fer2013_comes_to_its_chips_by_the_same_way():
    found = upright(np.array(LANDMARKS, np.float32), np.array(TEMPLATE, np.float32))
    assert np.allclose(found, CHIP_FROM_IMAGE, atol=0.4)
    assert found[0, 0] == pytest.approx(CHIP_FROM_IMAGE[0, 0], abs=0.01)
