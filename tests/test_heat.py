"""A hot board gets less to do before the kernel slows it down. All of it on trees and programs made here."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import heat
from agent.heat import Zone

ANYTHING = st.floats(-1000, 1000)


def zone(root: Path, number: int, name: str, temp: str, **trips: tuple[str, str]) -> Path:
    """A thermal zone as sysfs shows it; ``trips`` are (type, temperature)."""
    folder = root / "sys/class/thermal" / f"thermal_zone{number}"
    folder.mkdir(parents=True)
    (folder / "type").write_text(f"{name}\n")
    (folder / "temp").write_text(f"{temp}\n")
    for i, (kind, at) in enumerate(trips.values()):
        (folder / f"trip_point_{i}_type").write_text(f"{kind}\n")
        (folder / f"trip_point_{i}_temp").write_text(f"{at}\n")
    return folder


def program(folder: Path, script: str) -> str:
    """A folder with an ``nvpmodel`` that does what ``script`` says."""
    file = folder / "nvpmodel"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(folder)


def test_the_zones_of_a_board_are_read_with_the_point_where_the_kernel_throttles(tmp_path):
    zone(tmp_path, 0, "cpu-thermal", "51250", stop=("critical", "104500"), slow=("passive", "99000"))
    zone(tmp_path, 1, "tj-thermal", "52000", fan=("active", "85000"))
    assert heat.zones(tmp_path) == (Zone("cpu-thermal", 51.25, 99.0), Zone("tj-thermal", 52.0, None))


def test_a_zone_that_tells_nothing_or_nonsense_is_left_out(tmp_path):
    zone(tmp_path, 0, "cpu-thermal", "40000", slow=("passive", "99000"))
    (zone(tmp_path, 1, "gpu-thermal", "40000") / "temp").unlink()  # its part has no power
    zone(tmp_path, 2, "cv0-thermal", "-256000")
    zone(tmp_path, 3, "cv1-thermal", "")
    assert [each.name for each in heat.zones(tmp_path)] == ["cpu-thermal"]


def test_a_trip_point_that_is_not_used_is_no_limit(tmp_path):
    zone(tmp_path, 0, "x86_pkg_temp", "40000", off=("passive", "0"), unset=("passive", "-274000"))
    assert heat.zones(tmp_path)[0].throttles is None


def test_a_machine_without_thermal_zones_keeps_its_budget(tmp_path):
    assert heat.zones(tmp_path) == ()
    assert heat.share((), None, {}) == 1


def test_the_budget_shrinks_before_the_kernel_throttles_and_not_earlier():
    def share(celsius: float) -> float:
        return heat.share([Zone("cpu", celsius, 99.0), Zone("soc", 40.0, 99.0)], None, {})

    assert [share(celsius) for celsius in (20, 89)] == [1, 1]
    assert share(94) == pytest.approx(0.625)
    assert share(99) == share(120) == 0.25


@given(temperatures=st.lists(ANYTHING, max_size=5), limit=ANYTHING, hotter=st.floats(0, 100))
def test_heat_never_gives_time_and_never_takes_it_all(temperatures, limit, hotter):
    before = heat.share([Zone("z", celsius, limit) for celsius in temperatures], None, {})
    after = heat.share([Zone("z", celsius + hotter, limit) for celsius in temperatures], None, {})
    assert 0.25 <= after <= before <= 1


def test_a_power_mode_has_the_share_that_the_configuration_gives_it():
    modes = {"15W": 0.6}
    assert heat.share((), "15W", modes) == 0.6
    assert heat.share((), "MAXN", modes) == 1
    assert heat.share((), None, modes) == 1
    assert heat.share([Zone("cpu", 99.0, 99.0)], "15W", modes) == 0.25


def test_the_power_mode_is_what_nvpmodel_says(tmp_path):
    said = "echo 'NVPM WARN: fan mode is not set!'; echo 'NV Power Mode: MODE_30W'; echo 2"
    assert heat.power_mode(program(tmp_path, said)) == "MODE_30W"


@pytest.mark.parametrize("script", ["exit 1", "echo nonsense", "printf '\\377\\376'"])
def test_a_power_mode_that_cannot_be_told_is_none(tmp_path, script):
    assert heat.power_mode(program(tmp_path, script)) is None


def test_an_nvpmodel_that_hangs_is_not_waited_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(heat, "_ASK_S", 0.2)
    assert heat.power_mode(program(tmp_path, "exec sleep 60")) is None


def test_a_machine_without_nvpmodel_has_no_power_mode(tmp_path):
    assert heat.power_mode(str(tmp_path)) is None
