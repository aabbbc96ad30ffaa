"""A car whose battery is taken out while the agent writes: the disk is kept, and the machine boots again."""

import random
import time

import pytest

_TIMES = 20


@pytest.fixture(scope="module")
def chance() -> random.Random:
    return random.Random(6)  # noqa: S311 - the same moments in every run


@pytest.mark.parametrize("cut", range(_TIMES))
def test_what_was_done_is_there_after_a_power_cut_and_the_service_comes_back(car, chance, cut):
    """People are enrolled, plans written and the configuration reloaded all the while.

    The plug is pulled in turn by the host and by the guest's own kernel, which is told to switch off without a word to
    anybody. What was not reported as done may be there or not, but only as a whole.
    """
    machine = car.machine
    enrolled = set(car.disk()["people"])
    car.set_picture(moving=True)
    car.run(f"systemd-run --quiet --unit work {car.interpreter} /opt/rig/inside/work.py {cut}")
    car.wait_for("something done", lambda: {"enrolled", "plan", "reloaded"} <= machine.reports().keys())
    time.sleep(chance.uniform(0, 3))
    if cut % 2:
        machine.send("echo o >/proc/sysrq-trigger")
        machine.wait_for_the_end()
    else:
        machine.cut_power()
    done = machine.reports()
    print(f"done by then: {', '.join(f'{len(each)} × {name}' for name, each in done.items())}")

    machine.boot()
    car.wait_for("the service", car.is_ready)
    disk = car.disk()
    promised = enrolled | set(done["enrolled"])
    untold = disk["people"].keys() - promised  # one may have been stored that nobody was told of
    print(f"enrolled: {len(promised)} and {len(untold)} that was cut short; plan {disk['plan']}")
    assert promised <= disk["people"].keys()
    assert len(untold) <= 1
    assert all(samples > 0 for samples in disk["people"].values())
    assert disk["plan"] in {int(done["plan"][-1]), int(done["plan"][-1]) + 1}
