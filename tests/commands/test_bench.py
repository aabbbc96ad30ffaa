"""``cabinsense bench``: figures that can be believed, for people and for programs."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.gallery import benchmark


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the command as a user would."""
    command = [sys.executable, "-m", "agent", "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_chain_is_measured_step_by_step(tmp_path, pack, samples):
    config = tmp_path / "cabinsense.toml"
    config.write_text(f'pack = "{pack.path}"\n[budget]\nframe_ms = 0\n')  # or a busy machine leaves steps out
    done = bench("--config", config, "--frames", 4, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["frames"] == 4
    assert {"detect", "face"} <= set(report["stages"])


def test_matching_is_measured_for_every_size_beside_what_the_memory_allows(tmp_path):
    done = bench("gallery", "--up-to", 299, "--rounds", 3, "--json", "--plot", tmp_path / "bench.png")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [row["templates"] for row in report["rows"]] == [10, 30, 100]
    assert report["left_out"] == []
    known = {"product", "faiss"} if importlib.util.find_spec("faiss") else {"product"}
    for row in report["rows"]:
        assert set(row["backends"]) == known
        assert 0 < row["read"]["low"] <= row["read"]["median"] <= row["read"]["high"]
        for timing in row["backends"].values():
            # Whatever the machine does besides: a look cannot take less than the product that it contains.
            assert timing["match"]["high"] > row["product"]["low"]
            assert timing["fallbacks"] == 0
    picture = cv2.imread(str(tmp_path / "bench.png"))
    assert picture.std() > 10


def test_a_person_reads_a_table():
    done = bench("gallery", "--up-to", 10, "--rounds", 3)
    assert done.returncode == 0, done.stderr
    assert "read once" in done.stdout
    assert "bare product" in done.stdout


def test_a_picture_that_has_nowhere_to_go_is_refused_before_the_work():
    done = bench("gallery", "--plot", "/nowhere/bench.png")
    assert done.returncode == 1
    assert done.stderr.startswith("error: /nowhere: no such folder")


def test_what_does_not_fit_into_memory_is_left_out():
    assert benchmark.needed(1_000_000) > 1_000_000 * 128 * 5  # the templates and FAISS's copy
    assert benchmark.fitting(benchmark.SIZES, 2**40) == list(benchmark.SIZES)
    assert max(benchmark.fitting(benchmark.SIZES, 700_000_000)) == 300_000
    assert benchmark.fitting(benchmark.SIZES, 0) == []


def test_the_made_up_people_are_as_alike_as_real_strangers():
    faces = benchmark.faces(np.random.default_rng(0), 2000)
    cosines = (faces @ faces.T)[np.triu_indices(2000, 1)]
    assert np.linalg.norm(faces, axis=1) == pytest.approx(1, abs=1e-5)
    assert cosines.mean() == pytest.approx(0.83, abs=0.02)  # of LFW's with the default pack, see the module
    assert cosines.std() == pytest.approx(0.035, abs=0.01)
