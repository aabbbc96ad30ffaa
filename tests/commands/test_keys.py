"""`cabinsense keys`: what its users read, and what goes wrong with a sentence."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from agent import curve_keys

Result = subprocess.CompletedProcess[str]


@pytest.fixture
def keys(tmp_path) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        return subprocess.run(
            [sys.executable, "-m", "agent", "keys", *arguments],
            env=os.environ | {"CABINSENSE_DATA": str(tmp_path / "data"), "CABINSENSE_CONFIG": ""},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_key_is_made_allowed_listed_and_revoked(keys, tmp_path):
    made = keys("new", "tablet", "--folder", str(tmp_path))
    assert made.returncode == 0
    secret = curve_keys.read_secret(tmp_path / "tablet.key_secret").secret
    assert keys("allow", str(tmp_path / "tablet.key")).stdout == "tablet is let in\n"
    listed = keys("list", "--json")
    data = json.loads(listed.stdout)
    public = curve_keys.read(tmp_path / "tablet.key").public
    assert data["clients"] == [{"name": "tablet", "key": public}]
    assert data["server"] == curve_keys.server_pair(tmp_path / "data" / "curve").public
    people = keys("list").stdout
    assert data["server"] in people
    assert "tablet" in people
    assert secret not in made.stdout + listed.stdout + people
    assert keys("revoke", "tablet").stdout == "tablet is kept out\n"
    assert json.loads(keys("list", "--json").stdout)["clients"] == []


def test_a_key_can_be_typed_and_needs_a_name_then(keys):
    public = curve_keys.new_pair().public
    nameless = keys("allow", public)
    assert (nameless.returncode, "--name" in nameless.stderr) == (2, True)
    assert keys("allow", public, "--name", "phone").stdout == "phone is let in\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("allow", "none.key"), "none.key: No such file"),
        (("allow", "/etc/hostname"), "no public key of 40 characters"),
        (("revoke", "nobody"), "no client is called nobody"),
        (("new", "../up"), "no name for a key"),
        (("new", "name", "--folder", "/proc/nowhere"), "choose a folder that may be written to"),
    ],
)
def test_a_mistake_is_told_in_one_line(keys, arguments, told):
    done = keys(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_file_that_is_left_out_is_told(keys, tmp_path):
    keys("list")
    (tmp_path / "data" / "curve" / "allowed").mkdir()
    (tmp_path / "data" / "curve" / "allowed" / "odd.key").write_text("hello")
    listed = keys("list")
    assert "left out" in listed.stderr
    assert "odd.key" in listed.stderr
