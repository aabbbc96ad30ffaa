"""``cabinsense evaluate stream`` as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.streams import cells


@pytest.fixture
def stream(tmp_path, pack):
    """Runs the command."""
    config = tmp_path / "cabinsense.toml"
    config.write_text(f'pack = "{pack.path}"\n')

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "agent", "evaluate", "stream", "--config", str(config)]
        return subprocess.run(
            [*command, *map(str, arguments)], capture_output=True, text=True, timeout=250, check=False
        )

    return run


@pytest.fixture(scope="session")
def faces(shared_data, tmp_path_factory) -> Path:
    """A few faces of each split of FER2013."""
    path = tmp_path_factory.mktemp("fer2013") / "few.npz"
    with np.load(shared_data / "fer2013.npz", allow_pickle=False) as data:
        few = {name: data[name][:80] for name in ("train_x", "train_y", "validation_x", "validation_y")}
    np.savez(path, **few)
    return path


def test_an_interrupted_run_goes_on_and_leaves_tables_and_pictures(stream, faces, tmp_path):
    folder = tmp_path / "report"
    arguments = ("--data", faces, "--split", "tune", "--limit", "40", "--seeds", "1", "--report", folder)
    shown = ("--order", "sorted", "--order", "ramp", "--shift", "low_light", "--methods", "lame,cabinsense")
    done = stream(*arguments, *shown, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(row["order"], row["method"]) for row in report["summary"]] == [
        ("ramp", "frozen"),
        ("ramp", "lame"),
        ("ramp", "cabinsense"),
        ("sorted", "frozen"),
        ("sorted", "lame"),
        ("sorted", "cabinsense"),
    ]
    assert all(0 < rate["frozen"] <= 1 for rate in report["rates"])
    assert "sorted low_light 0" in done.stderr
    with (folder / "cells.jsonl").open("ab") as results:
        results.write(b'{"run":')  # a line that was cut off
    kept = (folder / "cells.jsonl").read_bytes()
    assert json.loads((folder / "report.json").read_bytes()) == report
    assert "| sorted | lame |" in (folder / "report.md").read_text("utf-8")
    for name in ("won-back", "errors-sorted-low_light-3", "errors-ramp-low_light-3"):
        picture = cv2.imread(str(folder / f"{name}.png"))
        assert picture is not None
        assert picture.std() > 10

    again = stream(*arguments, *shown)
    assert again.returncode == 0, again.stderr
    assert (folder / "cells.jsonl").read_bytes() == kept  # nothing was left to do
    assert "1 of its lines are no results" in again.stderr.replace("\n", " ")
    assert "frozen" in again.stdout
    assert "won back" in again.stdout


def test_methods_that_learn_run_too(stream, faces):
    pytest.importorskip("torch")
    done = stream(
        *("--data", faces, "--split", "tune", "--limit", "48", "--seeds", "1", "--severity", "5", "--json"),
        *("--order", "shuffled", "--shift", "motion_blur", "--methods", "bn,tent,eata,sar,rotta"),
    )
    assert done.returncode == 0, done.stderr
    rates = json.loads(done.stdout)["rates"]
    assert [rate["method"] for rate in rates] == ["frozen", "bn", "tent", "eata", "sar", "rotta"]
    assert rates[0]["frozen"] < rates[0]["clean"] - 0.1


def test_people_are_measured_by_their_pairs(stream, lfw, tmp_path):
    lines = (lfw / "pairs.txt").read_text("utf-8").split("\n")
    short = ["2\t12", *(line for block in range(4) for line in lines[1 + 300 * block :][:12])]
    (tmp_path / "lfw").mkdir()
    for person in lfw.iterdir():
        if person.is_dir():
            (tmp_path / "lfw" / person.name).symlink_to(person)
    (tmp_path / "lfw" / "pairs.txt").write_text("\n".join(short) + "\n", "utf-8")
    done = stream(
        *("--data", tmp_path / "lfw", "--task", "identity", "--seeds", "1", "--limit", "0", "--json"),
        *("--order", "sorted", "--shift", "low_light", "--severity", "5", "--methods", "frozen"),
    )
    assert done.returncode == 0, done.stderr
    (rate,) = json.loads(done.stdout)["rates"]
    assert rate["clean"] > 0.9
    assert rate["frozen"] <= rate["clean"]
    assert 0 <= rate["far"] <= 1
    assert rate["own_frozen"] is not None


def test_too_few_pairs_are_told(stream, lfw):
    done = stream(
        *("--data", lfw, "--task", "identity", "--seeds", "1", "--limit", "4", "--methods", "frozen"),
        *("--order", "sorted", "--shift", "low_light"),
    )
    assert done.returncode == 1
    assert "pairs of one person or of strangers; at least 10 of each are needed" in done.stderr.replace(
        "\n", " "
    )
    assert "Traceback" not in done.stderr


def test_a_report_that_cannot_be_written_at_the_end_keeps_the_results(stream, faces, tmp_path):
    folder = tmp_path / "report"
    (folder / "report.md").mkdir(parents=True)
    done = stream(
        *("--data", faces, "--split", "tune", "--limit", "20", "--seeds", "1", "--report", folder),
        *("--order", "sorted", "--shift", "low_light", "--methods", "frozen"),
    )
    assert done.returncode == 1
    assert "report.md: Is a directory; the results are kept" in done.stderr.replace("\n", "")
    assert len(cells.load(folder / "cells.jsonl")[0]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shift", "fog"], "--shift fog: there are none, low_light"),
        (["--order", "backwards"], "--order backwards: for emotion there are shuffled"),
        (["--task", "identity", "--order", "neutral"], "--order neutral: for identity there are"),
        (["--methods", "magic", "--data", "absent.npz"], "no method 'magic'"),
        (["--task", "identity", "--methods", "lame"], "no method 'lame' for this task"),
        (["--data", "absent.npz"], "absent.npz does not exist"),
        (["--report", "absent/folder"], "--report absent/folder: No such file"),
        (["--report", "taken"], "--report taken/cells.jsonl: Is a directory; name another folder"),
        (["--report", "few.npz"], "--report few.npz: File exists; name another folder"),
        (["--report", "/proc/1/task"], "--report /proc/1/task/cells.jsonl: "),
        (["--without", "fog", "--methods", "cabinsense"], "no condition 'fog' in the pack's norm bank"),
        (["--without", "dark", "--methods", "lame"], "--without dark: it is cabinsense that has a bank"),
        (["--methods", ","], "--methods ',' names none"),
        (["--task", "identity", "--data", "taken"], "taken/pairs.txt: No such file or directory; LFW's list"),
        (["--limit", "3", "--order", "clean", "--methods", "frozen"], "order clean: 3 faces are too few"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(stream, faces, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (tmp_path / "taken" / "cells.jsonl").mkdir(parents=True)
    (tmp_path / "few.npz").touch()
    data = [] if "--data" in arguments else ["--data", faces]
    done = stream(*data, "--split", "tune", "--limit", "20", *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"error: {message}" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
