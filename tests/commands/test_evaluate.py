import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.lfw import photographs, read_pairs

EACH = 15  # pairs of each kind in each of two folds: 60 pairs


@pytest.fixture
def evaluate(tmp_path, pack):
    """Runs the command as a user would."""
    config = tmp_path / "cabinsense.toml"
    config.write_text(f'pack = "{pack.path}"\n')

    def run(what: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "agent", "evaluate", what, "--config", str(config)]
        return subprocess.run(
            [*command, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
        )

    return run


@pytest.fixture(scope="session")
def pairs(lfw, tmp_path_factory) -> Path:
    """A short list of LFW's pairs: the first of each kind in the first two folds."""
    lines = (lfw / "pairs.txt").read_text("utf-8").split("\n")
    short = [f"2\t{EACH}"]
    for block in range(4):  # genuine and impostor pairs of fold 1, then of fold 2
        short += lines[1 + 300 * block :][:EACH]
    file = tmp_path_factory.mktemp("lfw") / "pairs.txt"
    file.write_text("\n".join(short) + "\n", "utf-8")
    return file


def is_picture(path: Path) -> bool:
    image = cv2.imread(str(path))
    return image is not None and min(image.shape[:2]) > 300 and image.std() > 10


def test_people_of_lfw_are_told_apart_and_the_report_is_one_json_object(evaluate, lfw, pairs, tmp_path):
    done = evaluate("verification", "--root", lfw, "--pairs", pairs, "--json", "--plot", tmp_path / "roc.png")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["pairs"] == 4 * EACH
    assert report["undetected"] == 0
    assert report["accuracy"] >= 0.9
    assert 0 <= report["accuracy_std"] < 0.1
    assert set(report["tar_at_far"]) == {"0.01", "0.001"}
    assert report["tar_at_far"]["0.001"] >= 0.8
    low, high = report["tar_at_far_interval"]["0.001"]
    assert low <= report["tar_at_far"]["0.001"] <= high
    assert 0.85 < report["threshold"] < 1
    assert report["tested_on"]["threshold"] == report["threshold"]
    assert is_picture(tmp_path / "roc.png")
    total = len(photographs(read_pairs(pairs)))
    assert f"{total}/{total}" in done.stderr


def test_for_people_the_figures_stand_in_a_table(evaluate, lfw, pairs):
    done = evaluate("verification", "--root", lfw, "--pairs", pairs)
    assert done.returncode == 0, done.stderr
    for word in ("accuracy", "TAR at FAR 0.001", "threshold", "pairs", "photographs without a face", "±"):
        assert word in done.stdout


@pytest.fixture
def album(samples, tmp_path) -> Path:
    """Two people and an empty photograph, laid out as LFW is."""
    pictures = {
        "Obama/Obama_0001.jpg": (samples / "obama.jpg").read_bytes(),
        "Obama/Obama_0002.jpg": (samples / "obama2.jpg").read_bytes(),
        "Obama/Obama_0003.jpg": (samples / "obama3.jpg").read_bytes(),
        "Biden/Biden_0001.jpg": (samples / "biden.jpg").read_bytes(),
        "Nobody/Nobody_0001.jpg": cv2.imencode(".jpg", np.full((90, 90, 3), 90, np.uint8))[1].tobytes(),
    }
    for name, data in pictures.items():
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "album"


def test_a_photograph_without_a_face_is_a_failure_not_an_exception(evaluate, album, tmp_path):
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("2\t1\nObama\t1\t2\nObama\t1\tBiden\t1\nObama\t2\t3\nObama\t3\tNobody\t1\n")
    done = evaluate("verification", "--root", album, "--pairs", pairs, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["pairs"] == 4
    assert (report["undetected"], report["undetected_pairs"]) == (1, 1)
    assert report["accuracy"] <= 0.75
    assert report["tar_at_far"] == {"0.01": 1.0, "0.001": 1.0}
    # The pack's threshold knows Obama again, and an undetected face is not a false acceptance.
    assert report["pack_tested_on"]["tar"] == 1
    assert report["pack_tested_on"]["far"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "absent.txt"], "absent.txt: No such file"),
        (["--pairs", "broken.txt"], "broken.txt, line 3: "),
        (["--root", "nowhere"], "nowhere/Biden/Biden_0001.jpg does not exist"),
        (["--plot", "nowhere/roc.png"], "nowhere: no such folder"),
        (["--pack", "nowhere"], "nowhere: no pack here"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_before_the_long_work(
    evaluate, album, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    good = "2\t1\nObama\t1\t2\nObama\t1\tBiden\t1\nObama\t2\t3\nObama\t3\tBiden\t1\n"
    Path("pairs.txt").write_text(good)
    Path("broken.txt").write_text(good.replace("Biden\t1", "Biden\tone", 1))
    options = {"--root": "album", "--pairs": "pairs.txt"} | dict([arguments])
    done = evaluate("verification", *(part for pair in options.items() for part in pair))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="session")
def fer2013(shared_data, tmp_path_factory) -> Path:
    """The first images of FER2013's private test."""
    with np.load(shared_data / "fer2013.npz", allow_pickle=False) as data:
        images, labels = data["test_x"][:200], data["test_y"][:200]
    path = tmp_path_factory.mktemp("fer2013") / "short.npz"
    np.savez(path, test_x=images, test_y=labels)
    return path


def test_expressions_are_named_far_better_than_by_chance(evaluate, fer2013, tmp_path):
    arguments = "--npz", fer2013, "--split", "test", "--json", "--plot", tmp_path / "confusion.png"
    done = evaluate("emotion", *arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["samples"] == 200
    assert report["accuracy"] > 0.5
    assert report["balanced_accuracy"] > 0.4
    confusion = np.array(report["confusion"])
    assert confusion.shape == (7, 7)
    assert confusion.sum() == 200
    assert np.trace(confusion) / 200 == pytest.approx(report["accuracy"])
    for index, label in enumerate(report["labels"]):
        assert report["per_class"][label]["samples"] == confusion[index].sum()
    assert is_picture(tmp_path / "confusion.png")
    assert "200/200" in done.stderr


def test_for_people_the_expressions_stand_in_a_table(evaluate, fer2013):
    done = evaluate("emotion", "--npz", fer2013, "--split", "test")
    assert done.returncode == 0, done.stderr
    for word in ("accuracy", "balanced", "surprise", "neutral", "recall", "precision"):
        assert word in done.stdout


def test_a_file_that_is_not_fer2013_is_named_in_one_line(evaluate, tmp_path):
    np.savez(tmp_path / "other.npz", faces=np.zeros(3))
    done = evaluate("emotion", "--npz", tmp_path / "other.npz", "--split", "test")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "other.npz" in done.stderr
