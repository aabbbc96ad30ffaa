import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.gallery.store import Gallery
from agent.gallery.types import Sample
from agent.perception.types import Pose, Quality

FAIR = Quality(50, 50, 120, 50, Pose(0, 0, 0))


@pytest.fixture
def box(tmp_path, pack) -> Path:
    """A folder of data with a configuration."""
    (tmp_path / "config.toml").write_text(
        f'pack = "{pack.path}"\n[control]\nendpoint = "ipc://{tmp_path}/c"\n'
    )
    return tmp_path


@pytest.fixture
def calibrate(box):
    """Runs the command as a user would."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "agent", "calibrate", "threshold", "--config", box / "config.toml"]
        return subprocess.run(
            [*map(str, command), *map(str, arguments)],
            env=os.environ | {"CABINSENSE_DATA": str(box), "COLUMNS": "140"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def stored(box, pack):
    with Gallery.open(box / "gallery.db", readonly=True) as gallery:
        return gallery.calibration(pack.manifest.digest)


def test_photographs_give_a_threshold_for_each_size_of_gallery_and_it_is_stored(
    calibrate, box, pack, some_people, tmp_path
):
    root = some_people((36, 4))
    picture = tmp_path / "threshold.png"
    done = calibrate("--root", root, "--far", "0.02", "--json", "--plot", picture)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["people"], report["looks"], report["undetected"]) == (36, 144, 0)
    assert [step["people"] for step in report["steps"]] == [1, 2, 5]
    thresholds = [step["threshold"] for step in report["steps"]]
    assert thresholds == sorted(thresholds)
    assert 0.88 < thresholds[0] < thresholds[-1] < 1
    for step in report["steps"]:
        assert step["far"] <= 0.02
        assert step["tar_interval"][0] <= step["tar"] <= step["tar_interval"][1]
        assert step["tar"] > 0.9
    kept = stored(box, pack)
    assert kept.steps == tuple((step["people"], step["threshold"]) for step in report["steps"])
    assert (kept.threshold, kept.far_target, kept.pack) == (thresholds[0], 0.02, pack.manifest.digest)
    assert f"144 looks at 36 people of {root.name}" in kept.pairs
    image = cv2.imread(str(picture))
    assert min(image.shape[:2]) > 300
    assert image.std() > 10
    assert "144/144" in done.stderr


def test_the_photographs_of_a_list_of_pairs_will_do_and_a_dry_run_stores_nothing(
    calibrate, box, some_people, tmp_path
):
    root = some_people((24, 3))
    names = sorted(folder.name for folder in root.iterdir())
    lines = ["2\t12"]
    for half in (names[:12], names[12:]):
        numbers = {name: sorted(int(f.stem[-4:]) for f in (root / name).iterdir()) for name in half}
        lines += [f"{name}\t{numbers[name][0]}\t{numbers[name][1]}" for name in half]
        lines += [
            f"{a}\t{numbers[a][0]}\t{b}\t{numbers[b][2]}"
            for a, b in zip(half, [*half[1:], half[0]], strict=True)
        ]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n", "utf-8")
    done = calibrate("--root", root, "--pairs", tmp_path / "pairs.txt", "--far", "0.05", "--dry-run")
    assert done.returncode == 0, done.stderr
    for words in ("72 looks at 24 people", "people enrolled", "1 (now)", "not stored"):
        assert words in done.stdout
    assert not (box / "gallery.db").exists()


@pytest.fixture
def crowded(box, pack):
    """A gallery of many made-up people."""

    def fill(people: int) -> None:
        rng = np.random.default_rng(0)
        with Gallery.open(box / "gallery.db") as gallery:
            for who in range(people):
                centre = rng.normal(size=128)
                rows = centre + rng.normal(0, 0.5, (4, 128))
                rows /= np.linalg.norm(rows, axis=1, keepdims=True)
                samples = [Sample(row.astype(np.float32), FAIR) for row in rows]
                gallery.enrol(f"Passenger {who}", samples, pack.manifest.digest, 50)

    return fill


def test_a_large_gallery_gives_its_own_threshold(calibrate, box, pack, crowded):
    crowded(40)
    done = calibrate("--gallery", "--far", "0.02")
    assert done.returncode == 0, done.stderr
    assert "160 looks at 40 people of the gallery" in done.stdout
    assert "10 (now)" in done.stdout
    assert "the data say nothing about more than 10" in done.stderr
    assert f"stored in {box / 'gallery.db'}" in done.stdout
    kept = stored(box, pack)
    assert [people for people, _ in kept.steps] == [1, 2, 5, 10]
    assert kept.threshold == kept.steps[-1][1]


def test_a_gallery_of_a_family_says_nothing_about_strangers_and_nothing_is_stored(
    calibrate, box, pack, crowded
):
    crowded(3)
    done = calibrate("--gallery")
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: 3 people, 3 of them with two looks or more, make 6 pairs" in done.stderr
    assert "3000 are needed" in done.stderr
    assert stored(box, pack) is None


def test_a_threshold_that_the_configuration_overrides_is_said_to_be(calibrate, box, crowded):
    crowded(20)
    config = box / "config.toml"
    config.write_text(config.read_text() + "[identity]\nthreshold = 0.91\n")
    done = calibrate("--gallery", "--far", "0.1")
    assert done.returncode == 0, done.stderr
    assert "identity.threshold = 0.91 stands in the configuration" in done.stderr


@pytest.mark.parametrize(
    "arguments", [[], ["--gallery", "--root", "somewhere"], ["--gallery", "--pairs", "pairs.txt"]]
)
def test_what_to_measure_on_has_to_be_said_once(calibrate, arguments):
    done = calibrate(*arguments)
    assert done.returncode == 2
    assert "--root" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--root", "nowhere"], "nowhere: no photographs here"),
        (["--gallery"], "there is no gallery here"),
        (["--root", ".", "--pairs", "absent.txt"], "absent.txt: No such file"),
    ],
)
def test_what_is_missing_is_named_in_one_line(calibrate, arguments, words):
    done = calibrate(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
