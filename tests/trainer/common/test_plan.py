"""What a run would cost is told before it begins."""

import pytest
from typer.testing import CliRunner

from trainer.common import plan
from trainer.common.job import TrainingError


def test_the_plan_counts_parameters_and_work(tiny):
    rows = dict(plan.make(tiny.TinyJob(tiny.TinySettings())))
    assert rows["images"] == "80"
    assert rows["batch"] == "images float32 [16, 3, 8, 8], labels int64 [16]"
    assert rows["parameters, all"] == str(3 * 9 * 8 + 8 + 8 + 8 + 8 * 4 + 4)
    # Two operations a multiply-add: 6 by 6 places of 8 channels over 3 by 9 inputs, and the last layer.
    assert rows["FLOPs a sample, forward"] == f"{2 * (36 * 8 * 27 + 8 * 4) / 1e6:.1f} million"
    assert rows["steps"].startswith("60 of 16 samples")


def test_what_does_not_fit_into_memory_is_refused(tiny, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    with pytest.raises(TrainingError, match="a smaller batch needs less"):
        plan.make(tiny.TinyJob(tiny.TinySettings()))


def test_a_dry_run_of_the_emotion_task_makes_no_feature_map(fer2013, trunk_file, tmp_path):
    from trainer.__main__ import app

    sets = [
        f"data={fer2013}",
        f"trunk={trunk_file}",
        f"cache={tmp_path / 'cache'}",
        "threads=1",
        "bfloat16=false",
    ]
    arguments = [part for each in sets for part in ("--set", each)]
    done = CliRunner().invoke(app, ["emotion", "--dry-run", "--out", str(tmp_path / "run"), *arguments])
    assert done.exit_code == 0, done.output
    assert "28,709" in done.stdout
    assert "11 of 11" in done.stdout
    assert not list(tmp_path.iterdir())
