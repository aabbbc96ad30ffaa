"""`cabinsense models`, as a person and a program use it."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from engines.pack import MANIFEST


@pytest.fixture
def data(tmp_path, pack):
    """A data folder that holds the default pack."""
    shutil.copytree(pack.path, tmp_path / "packs" / "default")
    return tmp_path


def models(data, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "agent", "models", *map(str, arguments)],
        env={
            **os.environ,
            "CABINSENSE_DATA": str(data),
            "CABINSENSE_CONFIG": "",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def damage(data):
    (data / "packs" / "default" / "face.onnx").write_bytes(b"not what was released")


def test_fetching_again_changes_nothing_and_needs_no_network(data, pack, samples):
    fetched = models(
        data, "fetch", "--samples", PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS=""
    )
    assert fetched.returncode == 0, fetched.stderr
    assert f"pack default {pack.manifest.digest[:12]}: {data}" in fetched.stdout
    assert f"samples: {samples}" in fetched.stdout


def test_verify_passes_the_pack_of_the_configuration_or_one_that_is_named(data, pack, tmp_path):
    for verified in (models(data, "verify"), models(tmp_path / "empty", "verify", pack.path)):
        assert verified.returncode == 0, verified.stderr
        assert pack.manifest.digest in verified.stdout


def test_verify_takes_a_configuration_as_other_commands_do(pack, tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(f'pack = "{pack.path}"\n')
    verified = models(tmp_path / "empty", "verify", "--config", file)
    assert verified.returncode == 0, verified.stderr
    assert pack.manifest.digest in verified.stdout


def test_verify_names_the_damaged_file_and_fetch_mends_it(data, sources):
    damage(data)
    verified = models(data, "verify")
    assert verified.returncode == 1
    assert verified.stderr.startswith("error: ")
    assert "face.onnx: SHA-256 is" in verified.stderr
    assert "Traceback" not in verified.stderr
    assert models(data, "fetch").returncode == 0
    assert models(data, "verify").returncode == 0


def test_verify_says_when_there_is_no_pack(tmp_path):
    verified = models(tmp_path, "verify")
    assert verified.returncode == 1
    assert "no pack here" in verified.stderr
    assert "cabinsense models fetch" in verified.stderr


def test_list_shows_packs_to_people_and_programs(data, pack):
    assert pack.manifest.digest[:12] in models(data, "list").stdout
    (listed,) = json.loads(models(data, "list", "--json").stdout)
    assert listed["digest"] == pack.manifest.digest
    assert listed["path"] == str(data / "packs" / "default")
    assert listed["manifest"]["face"]["labels"] == list(pack.manifest.face.labels)


def test_list_goes_on_past_a_pack_that_cannot_be_read(data):
    own = shutil.copytree(data / "packs" / "default", data / "packs" / "own")
    (own / MANIFEST).write_text("colour = 'red'")
    good, bad = json.loads(models(data, "list", "--json").stdout)
    assert "error" not in good
    assert "pack.toml" in bad["error"]
    assert "own" in models(data, "list").stdout


def test_list_says_when_there_is_nothing(tmp_path):
    assert "cabinsense models fetch" in models(tmp_path, "list").stdout
    assert json.loads(models(tmp_path, "list", "--json").stdout) == []
