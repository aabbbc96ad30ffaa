"""The unit and its drop-ins, as far as they can be judged without starting them; tests/vm starts them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "systemd"
UNIT = FOLDER / "cabinsense.service"
DROP_INS = sorted((FOLDER / "drop-ins").glob("*.conf"))
EXPOSURE = 3.0
_NOT_IN_249 = {  # what came with systemd 250 and later; JetPack 6 has 249
    "ExitType",
    "ImportCredential",
    "LoadCredentialEncrypted",
    "MemoryPressureWatch",
    "OpenFile",
    "RestartMaxDelaySec",
    "RestartMode",
    "RestartSteps",
    "RestrictFileSystems",
    "SetCredentialEncrypted",
}


def analyze(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on a copy of the unit whose programs are there."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = UNIT.read_text().replace("/opt/cabinsense/venv/bin/cabinsense", "/bin/sh")
    unit = folder / UNIT.name
    unit.write_text(text.replace("/bin/kill", "/bin/sh"))
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments, str(unit)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def findings(tmp_path_factory) -> list[dict]:
    """Every check of systemd-analyze security, with its outcome."""
    told = analyze("security", "--offline=yes", "--json=short", folder=tmp_path_factory.mktemp("unit"))
    if "offline" in told.stderr:
        pytest.skip("systemd-analyze judges units that are not loaded only from version 250 on")
    return json.loads(told.stdout)


def left_out() -> dict[str, str]:
    """Hardening that the unit says it leaves out, and why."""
    _, _, listed = UNIT.read_text().partition("# Hardening that is left out")
    return dict(re.findall(r"^# ([A-Za-z]+=\S*)  (\S.*)$", listed, flags=re.MULTILINE))


def test_systemd_finds_no_fault_in_it(tmp_path):
    told = analyze("verify", "--man=no", folder=tmp_path)
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.stem)
def test_systemd_finds_no_fault_in_it_with_a_drop_in(drop_in, tmp_path):
    folder = tmp_path / f"{UNIT.name}.d"
    folder.mkdir()
    shutil.copy(drop_in, folder)
    told = analyze("verify", "--man=no", folder=tmp_path)
    assert (told.returncode, told.stderr) == (0, "")


def test_its_exposure_is_within_bounds(tmp_path, findings):
    told = analyze("security", "--offline=yes", f"--threshold={EXPOSURE * 10:.0f}", folder=tmp_path)
    assert told.returncode == 0, told.stdout


def test_each_hardening_that_it_leaves_out_has_a_reason_and_none_is_named_that_it_has(findings):
    open_to = {each["name"] for each in findings if float(each["exposure"] or 0) > 0}
    assert open_to == left_out().keys()


@pytest.mark.parametrize("file", [UNIT, *DROP_INS], ids=lambda path: path.stem)
def test_the_systemd_of_jetpack_6_knows_every_directive(file):
    keys = set(re.findall(r"^([A-Za-z]+)=", file.read_text(), flags=re.MULTILINE))
    assert keys
    assert not keys & _NOT_IN_249
    assert "notify-reload" not in re.findall(r"^Type=(.*)$", file.read_text(), flags=re.MULTILINE)
