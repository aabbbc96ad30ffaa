"""The threshold in force: what was measured for the gallery takes effect at once, the configuration goes before it."""

import pytest

from agent import upkeep
from agent.config import load
from agent.gallery.types import Calibration


@pytest.fixture
def measure(agent, pack, monkeypatch):
    """Stores a threshold with the gallery, as `calibrate threshold` does."""
    monkeypatch.setenv("CABINSENSE_DATA", str(agent.folder))

    def store(threshold: float, digest: str = pack.manifest.digest) -> None:
        steps = ((1, threshold), (5, threshold))
        with upkeep.changing(load(agent.config)) as gallery:
            gallery.store_calibration(
                Calibration(digest, threshold, 1e-3, 9e-4, 0.97, (0.96, 0.98), "a test", steps=steps)
            )

    return store


def recorded(agent, daemon, subscribe, more: str = ""):
    """A daemon that has recorded the man of the clip, and recognises him."""
    events = subscribe("identity", "health")
    daemon(more=more)
    events.wait_for(topic="health")
    done = agent.run("record", "Driver", "--seconds", "2")
    assert done.returncode == 0, done.stderr
    return events, events.wait_for(topic="identity", person="Driver")


def test_a_measured_threshold_takes_effect_in_the_running_daemon(agent, daemon, subscribe, measure, pack):
    events, known = recorded(agent, daemon, subscribe)
    assert known["threshold"] == pytest.approx(pack.manifest.face.steps[0][1])
    measure(0.9999)
    unknown = events.wait_for(topic="identity", person=None, threshold=0.9999)
    assert unknown["reason"] == "below_threshold"
    assert unknown["score"] < 0.9999
    measure(0.9)
    assert events.wait_for(topic="identity", person="Driver", threshold=0.9)["score"] > 0.9


def test_what_was_measured_with_another_pack_is_not_used(agent, daemon, subscribe, measure, pack):
    events, _ = recorded(agent, daemon, subscribe)
    measure(0.9999, "e" * 64)
    # The reload makes a new decision, with the threshold of the pack as before.
    again = events.wait_for(topic="identity", person="Driver")
    assert again["threshold"] == pytest.approx(pack.manifest.face.steps[0][1])


def test_the_configuration_goes_before_what_was_measured(agent, daemon, subscribe, measure):
    more = "[identity]\nthreshold = 0.88\n"
    events, known = recorded(agent, daemon, subscribe, more)
    assert known["threshold"] == pytest.approx(0.88)
    measure(0.9999)
    assert events.wait_for(topic="identity", person="Driver")["threshold"] == pytest.approx(0.88)
