"""A new configuration while the agent runs: what may change does, the rest is named, and a bad one changes nothing."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Config, ConfigError, parse
from agent.gallery.types import Snapshot
from agent.live import Live
from agent.reload import LIVE, Reloader, change

RUNNING = parse(b'[[cameras]]\nname = "cabin"\nsource = "0"\n[detector]\nwidth = 320\n', "x")


def wanted(text: str) -> Config:
    return parse(f'[[cameras]]\nname = "cabin"\nsource = "0"\n{text}'.encode(), "x")


def test_what_may_change_does_and_the_rest_is_named():
    done = change(RUNNING, wanted('[detector]\nthreshold = 0.7\nwidth = 640\n[log]\nlevel = "debug"'))
    assert set(done.changed) == {"detector.threshold", "log.level"}
    assert done.waiting == ("detector.width",)
    assert done.config.detector == msgspec.structs.replace(RUNNING.detector, threshold=0.7)
    assert done.config.log.level == "debug"


def test_cameras_are_named_as_a_whole_and_stay():
    done = change(RUNNING, parse(b'[[cameras]]\nname = "cabin"\nsource = "1"\n', "x"))
    assert done.waiting == ("cameras",)
    assert done.config.cameras == RUNNING.cameras


def test_where_the_driver_is_and_looks_may_change_and_which_camera_sees_him_may_not():
    done = change(
        RUNNING, wanted('[driver]\nzone = [0, 0, 0.5, 1]\nyaw = -9\ncamera = "cabin"\nenabled = false')
    )
    assert set(done.changed) == {"driver.zone", "driver.yaw"}
    assert set(done.waiting) == {"driver.camera", "driver.enabled"}
    assert (done.config.driver.zone, done.config.driver.enabled) == ((0.0, 0.0, 0.5, 1.0), True)


def test_the_same_configuration_changes_nothing():
    done = change(RUNNING, wanted(""))
    assert (done.config, done.changed, done.waiting) == (RUNNING, (), ())


def test_what_waits_for_a_restart_is_named_until_then_also_when_something_else_changes():
    first = change(RUNNING, wanted("[detector]\nwidth = 640"))
    second = change(first.config, wanted("[detector]\nwidth = 640\nthreshold = 0.7"))
    assert second.waiting == ("detector.width",)
    assert change(second.config, wanted("[detector]\nthreshold = 0.7")).waiting == ()


@pytest.mark.parametrize("key", LIVE)
def test_every_live_key_exists(key):
    found = msgspec.to_builtins(Config())
    for name in key.split("."):
        found = found[name]


def test_all_of_the_budget_is_live():
    assert set(change(Config(), wanted("[budget]\nframe_ms = 5\npower_modes.MODE_15W = 0.5")).changed) == {
        "budget.frame_ms",
        "budget.power_modes",
    }


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "quality": st.fixed_dictionaries({}, optional={"max_yaw": st.floats(0, 90)}),
            "engine": st.fixed_dictionaries({}, optional={"threads": st.integers(0, 64)}),
            "identity": st.fixed_dictionaries({}, optional={"votes": st.integers(1, 9)}),
            "pack": st.text("abc/", max_size=5),
        },
    )
)
def test_what_is_in_force_is_the_new_where_it_may_and_the_old_elsewhere(tables):
    new = msgspec.convert(tables, Config)
    done = change(Config(), new)
    assert (done.config.quality, done.config.identity) == (new.quality, new.identity)
    assert (done.config.engine, done.config.pack) == (Config().engine, "")
    assert change(done.config, new).changed == ()


class File:
    """A configuration file that somebody edits."""

    def __init__(self) -> None:
        self.text = ""

    def read(self) -> Config:
        return wanted(self.text)


def test_a_bad_configuration_is_refused_as_a_whole_and_told_until_it_is_mended(caplog):
    file, live = File(), Live(Snapshot(), RUNNING)
    reloader = Reloader(file.read, live)
    file.text = "[detector]\nthreshold = 0.7\n[quality]\nmax_yaw = 1000"
    with pytest.raises(ConfigError, match="max_yaw"):
        reloader.reload()
    assert live.config is RUNNING
    (problem,) = reloader.problems()
    assert "max_yaw" in problem
    assert "refused" in caplog.text

    file.text = "[detector]\nthreshold = 0.7\nwidth = 640"
    assert reloader.reload().changed == ("detector.threshold",)
    assert live.config.detector.threshold == 0.7
    (problem,) = reloader.problems()
    assert "detector.width" in problem
