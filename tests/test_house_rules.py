"""The rules of the house that no linter knows: who may import whom, and what the daemon starts without."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("agent", "engines", "calibration", "trainer")
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
WITH_SIDE_EFFECTS = {
    "threading",
    "queue",
    "socket",
    "time",
    "zmq",
    "sqlite3",
    "sqlite_utils",
    "pathlib",
    "os",
    "io",
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def rooms_of(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)} & set(ROOMS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_what_it_may(path):
    room = path.relative_to(ROOT).parts[0]
    is_command = path.parent == ROOT / "agent" / "commands"
    allowed = {
        "engines": {"engines"},
        "agent": {"agent", "engines"} | ({"calibration", "trainer"} if is_command else set()),
        "calibration": {"calibration", "agent", "engines"},
        "trainer": {"trainer", "engines", "calibration"},
    }[room]
    assert rooms_of(path) <= allowed


@pytest.mark.parametrize("path", sorted((ROOT / "agent" / "perception").glob("*.py")), ids=lambda p: p.name)
def test_perception_knows_no_thread_socket_clock_or_file(path):
    assert not {name.split(".")[0] for name in imports(path)} & WITH_SIDE_EFFECTS


def test_no_pickle_anywhere():
    for path in SOURCES:
        assert not {"pickle", "marshal", "shelve", "joblib"} & {
            name.split(".")[0] for name in imports(path)
        }, path


def test_the_daemon_needs_no_torch_no_plots_and_no_training():
    code = "import agent.cli, agent.daemon, agent.stages.adaptation, sys; print(sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for heavy in ("'torch'", "'matplotlib'", "'trainer'", "'calibration'"):
        assert heavy not in loaded


def test_the_service_imports_nothing_that_it_does_not_need(tmp_path):
    """A car that has just been started waits for each of these; the agent gets as far as to miss its models."""
    log = tmp_path / "log"
    with log.open("w") as journal:
        stream = os.fstat(journal.fileno())
        environment = os.environ | {
            "CABINSENSE_DATA": str(tmp_path),
            "CABINSENSE_CONFIG": str(tmp_path / "config.toml"),
            "JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino}",
            "PYTHONPATH": str(ROOT),
        }
        (tmp_path / "config.toml").touch()
        command = [sys.executable, "-X", "importtime", "-m", "agent", "run", "--no-table"]
        subprocess.run(command, env=environment, stdout=journal, stderr=journal, check=False)
    told = log.read_text()
    assert "no pack here" in told
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.splitlines() if "|" in line}
    assert {"agent", "engines", "onnxruntime", "cv2", "zmq"} <= loaded
    assert not loaded & {"asyncio", "onnx", "pydantic", "rich"}


def test_a_command_can_still_choose_the_threads_of_numpy():
    code = "import agent.cli, sys; print('numpy' in sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert loaded == "False\n"  # see agent/blas.py: OpenBLAS asks once, when it is loaded
