"""`cabinsense config` and the top of the command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agent.config import Config, parse
from engines.pack import MANIFEST, encode_manifest


def run(*arguments: str, config: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", *arguments],
        env=os.environ | {"CABINSENSE_CONFIG": config},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('[[cameras]]\nname = "cabin"\nsource = "/dev/video0"\n[detector]\nthreshold = 0.4\n')
    return str(path)


def test_what_is_shown_is_the_configuration_in_force_and_can_be_read_back(file):
    shown = run("config", "show", config=file)
    assert shown.returncode == 0, shown.stderr
    again = parse(shown.stdout.encode(), "shown")
    assert again.detector.threshold == 0.4
    assert again.cameras[0].name == "cabin"


def test_programs_get_json(file):
    shown = run("config", "show", "--json", "--config", file)
    assert msgspec.json.decode(shown.stdout, type=Config).detector.threshold == 0.4


def test_check_says_good_or_what_is_wrong(file, tmp_path):
    for named in ([file], ["--config", file]):
        assert "(cameras: cabin)" in run("config", "check", *named).stdout
    assert "(cameras: cabin)" in run("config", "check", config=file).stdout
    assert run("config", "check", file, "--config", str(tmp_path / "other.toml")).returncode == 2
    bad = tmp_path / "bad.toml"
    bad.write_text("[detector]\nthreshold = 2\n")
    refused = run("config", "check", str(bad))
    assert refused.returncode == 1
    assert str(bad) in refused.stderr
    assert "detector.threshold" in refused.stderr


def test_check_says_what_is_missing_for_the_gradient_tier(file):
    with Path(file).open("a") as text:
        text.write('[adaptation]\ntier = "gradient"\n')
    without = "import sys; sys.modules['torch'] = None; from agent.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", without, "config", "check", file], capture_output=True, text=True, check=True
    )
    assert "(cameras: cabin)" in done.stdout
    assert "PyTorch is missing; install it with `pip install 'cabinsense[adapt]'`" in done.stderr
    assert "adapts nothing" in done.stderr


def test_check_says_that_the_pack_has_no_norm_bank(file, pack, tmp_path):
    bare = shutil.copytree(pack.path, tmp_path / "bare")
    (bare / MANIFEST).write_bytes(
        encode_manifest(msgspec.structs.replace(pack.manifest, adaptation=msgspec.UNSET))
    )
    text = Path(file).read_text() + '[adaptation]\ntier = "statistics"\n'
    Path(file).write_text(f'pack = "{pack.path}"\n{text}')
    assert run("config", "check", file).stderr == ""
    Path(file).write_text(f'pack = "{bare}"\n{text}')
    done = run("config", "check", file)
    assert done.returncode == 0
    assert "no norm bank" in done.stderr
    assert "adapts nothing" in done.stderr


def test_a_file_that_was_named_must_exist():
    for command in (("config", "check"), ("config", "show"), ("gallery", "list")):
        done = run(*command, config="/nowhere/config.toml")
        assert done.returncode == 1
        assert "/nowhere/config.toml" in done.stderr


def test_what_is_shown_says_where_things_are(file):
    shown = run("config", "show", "--json", config=file)
    config = msgspec.json.decode(shown.stdout, type=Config)
    assert config.events.endpoint.endswith("/events.sock")
    assert config.gallery.path.endswith("/gallery.db")
    assert config.pack.endswith("/packs/default")


def test_the_reference_names_every_table():
    done = run("config", "reference")
    for table in msgspec.structs.fields(Config):
        assert table.name in done.stdout


def test_help_is_there_for_every_command_and_loads_no_heavy_library():
    heavy = "cv2", "onnxruntime", "onnx", "sqlite_utils"
    code = f"import agent.cli, sys; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
    for command in ("run", "events", "record", "analyze", "bench", "gallery", "models", "config", "evaluate"):
        assert run(command, "--help").returncode == 0


def test_a_command_that_does_not_exist_is_a_usage_error():
    assert run("dance").returncode == 2


def test_the_version_is_printed():
    assert run("--version").stdout.startswith("cabinsense ")
