import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import pytest
from rich.console import Console

from agent.commands import evaluate_people
from calibration.identification import Report
from calibration.quality import QualityReport

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory, pack) -> Path:
    """The folder of data, with a configuration."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "cabinsense.toml").write_text(f'pack = "{pack.path}"\n')
    return folder


@pytest.fixture(scope="module")
def evaluate(home) -> Run:
    """Runs the command as a user would."""

    def run(what: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "agent", "evaluate", what, "--config", str(home / "cabinsense.toml")]
        return subprocess.run(
            [*command, *map(str, arguments)],
            env=os.environ | {"CABINSENSE_DATA": str(home), "COLUMNS": "160"},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    return run


def is_picture(path: Path) -> bool:
    image = cv2.imread(str(path))
    return image is not None and min(image.shape[:2]) > 300 and image.std() > 10


@pytest.fixture(scope="module")
def identified(evaluate, some_people, tmp_path_factory):
    """What the command says of 16 people with six photographs and 24 with one, and its picture."""
    picture = tmp_path_factory.mktemp("picture") / "det.png"
    root = some_people((16, 6), (24, 1))
    done = evaluate("identification", "--root", root, "--people", "5", "--json", "--plot", picture)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), picture, done.stderr


def test_people_are_told_from_strangers_and_every_method_has_its_figures(identified):
    report, picture, stderr = identified
    assert report["photographs"] == 16 * 6 + 24
    assert report["undetected"] == 0
    assert report["used"] == "trimmed"
    for half in (report["chosen_on"], report["tested_on"]):
        assert half["enrolled"] == half["in_full"] == 5
        assert [row["method"] for row in half["open_set"]] == ["mean", "trimmed", "weighted", "clusters"]
        for row in half["open_set"]:
            assert row["dir"]["0.1"] > 0.8
            assert 0.88 < row["threshold"] < 1
        assert {row["images"] for row in half["by_images"]} == {1, 3, 5}
    assert report["chosen_on"]["people"] + report["tested_on"]["people"] == 40
    assert is_picture(picture)
    assert "120/120" in stderr


def test_strangers_stay_unknown_over_tracks_and_so_does_the_man_of_the_clip(identified):
    (drives,) = identified[0]["tracks"]
    assert drives["strangers"] > 50
    assert drives["named"] <= 0.1
    assert drives["recognised"] > 0.6
    assert drives["misnamed"] == 0
    assert (drives["clip"], drives["clip_named"]) == (5, 0)
    assert drives["threshold"] > 0.9


def test_no_embedding_is_left_on_the_disk(identified, home):
    assert [file.name for file in home.rglob("*") if file.is_file()] == ["cabinsense.toml"]


def printed(table) -> str:
    console = Console(width=160, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_for_people_the_figures_stand_in_tables(identified):
    report = msgspec.convert(identified[0], Report)
    text = printed(evaluate_people.gallery_table(report))
    for words in ("5 people enrolled", "FPIR 1 %", "trimmed (in use", "clusters", "(0.0 to 0.0)"):
        assert words in text
    text = printed(evaluate_people.images_table(report.tested_on))
    for words in ("five photographs", "1:1, FAR 0.1 %", "5, one of somebody else"):
        assert words in text
    text = printed(evaluate_people.tracks_table(report.tracks[0]))
    for words in ("Tracks, 5 people", "somebody named", "named rightly", "sample clip"):
        assert words in text


def test_too_few_people_are_told_in_one_line(evaluate, some_people, tmp_path):
    done = evaluate("identification", "--root", some_people((6, 2)))
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: 6 people" in done.stderr
    done = evaluate("identification", "--root", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no photographs here" in done.stderr


@pytest.fixture(scope="module")
def pairs(lfw, tmp_path_factory) -> Path:
    """The first pairs of each kind in LFW's first two folds."""
    lines = (lfw / "pairs.txt").read_text("utf-8").split("\n")
    short = ["2\t12"]
    for block in range(4):
        short += lines[1 + 300 * block :][:12]
    file = tmp_path_factory.mktemp("pairs") / "pairs.txt"
    file.write_text("\n".join(short) + "\n", "utf-8")
    return file


@pytest.fixture(scope="module")
def compared(evaluate, lfw, pairs, tmp_path_factory):
    """What the command says of two kinds of poor pictures, and its picture."""
    picture = tmp_path_factory.mktemp("picture") / "quality.png"
    arguments = "--kind", "jpeg", "--kind", "defocus_blur", "--severity", "4", "--people", "5", "--seed", "3"
    done = evaluate("quality", "--root", lfw, "--pairs", pairs, *arguments, "--json", "--plot", picture)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), picture


def test_poor_pictures_are_compared_with_good_ones_and_with_each_other(compared):
    report, picture = compared
    assert (report["severity"], report["seed"], report["pairs"], report["enrolled"]) == (4, 3, 48, 5)
    rows = {(row["kind"], row["pairing"]): row for row in report["rows"]}
    assert list(rows) == [
        ("", "high_high"),
        *((kind, pairing) for kind in ("jpeg", "defocus_blur") for pairing in ("low_high", "low_low")),
    ]
    assert rows["", "high_high"]["refused"] < 0.2
    assert rows["defocus_blur", "low_low"]["refused"] > 0.9
    assert rows["", "high_high"]["one_to_one"]["recall"] > 0.9
    assert is_picture(picture)


def test_for_people_the_pairings_stand_in_a_table(compared):
    text = printed(evaluate_people.quality_table(msgspec.convert(compared[0], QualityReport)))
    for words in ("good, good", "poor, good", "poor, poor", "jpeg", "1:N, FPIR 1 %", "as it is set"):
        assert words in text


def test_a_kind_that_is_not_there_is_refused_with_those_that_are(evaluate, lfw, pairs):
    done = evaluate("quality", "--root", lfw, "--pairs", pairs, "--kind", "fog")
    assert done.returncode != 0
    assert "low_light" in done.stderr
