import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from trainer.__main__ import app
from trainer.common.checkpoint import CheckpointError
from trainer.config import load_config
from trainer.emotion import prepare, train
from trainer.features import TrunkError, cut, open_trunk

REPOSITORY = Path(__file__).parents[2]


def quiet(what, count, total):
    pass


def test_a_few_epochs_on_real_faces_make_the_loss_fall(fer2013, settings, tmp_path):
    config = load_config(None, [*settings, f"data={fer2013}", "limit=320", "epochs=5", "mixup=0"])
    data = prepare(config, quiet)
    assert set(data.train_labels) == set(range(7))
    train(config, data, tmp_path / "run", quiet)
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in history] == [1, 2, 3, 4, 5]
    assert history[-1]["loss"] < history[0]["loss"] - 0.02


def test_a_run_cut_off_and_resumed_ends_with_the_weights_of_an_unbroken_one(settings, tmp_path):
    config = load_config(None, settings)
    data = prepare(config, quiet)
    unbroken = train(config, data, tmp_path / "unbroken", quiet).state_dict()
    train(config, data, tmp_path / "broken", quiet, stop_after=2)
    torch.manual_seed(99)
    resumed = train(config, data, tmp_path / "broken", quiet).state_dict()
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)
    histories = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("unbroken", "broken")]
    losses = [[json.loads(line)["loss"] for line in history.splitlines()] for history in histories]
    assert losses[0] == losses[1]


def test_a_checkpoint_of_other_settings_is_not_continued(settings, tmp_path):
    config = load_config(None, settings)
    data = prepare(config, quiet)
    train(config, data, tmp_path / "run", quiet, stop_after=1)
    other = load_config(None, [*settings, "learning_rate=0.01"])
    with pytest.raises(CheckpointError, match="another config"):
        train(other, data, tmp_path / "run", quiet)
    moved = load_config(None, [*settings, "threads=2"])  # changes where it runs, not what it computes
    train(moved, data, tmp_path / "run", quiet, stop_after=2)


def test_a_damaged_checkpoint_is_named(settings, tmp_path):
    config = load_config(None, settings)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.npz").write_bytes(b"half a fi")
    with pytest.raises(CheckpointError, match=r"checkpoint\.npz is not a checkpoint"):
        train(config, prepare(config, quiet), tmp_path / "run", quiet)


def test_features_are_made_once_and_an_interrupted_file_is_made_anew(settings, tmp_path):
    config = load_config(None, settings)
    prepare(config, quiet)
    files = sorted((tmp_path / "cache").glob("*.npy"))
    assert len(files) == 3  # two variants of train, plain validation
    times = [file.stat().st_mtime_ns for file in files]
    first = np.load(files[0])
    prepare(config, quiet)
    assert [file.stat().st_mtime_ns for file in files] == times
    files[0].unlink()
    files[0].with_suffix(".partial").write_bytes(b"cut off")
    prepare(config, quiet)
    assert (np.load(files[0]) == first).all()


def test_the_cut_trunk_gives_the_same_features_without_the_rest(trunk_file):
    chips = np.random.default_rng(0).integers(0, 256, (2, 150, 150, 3)).astype(np.uint8)
    whole = onnxruntime.InferenceSession(trunk_file.read_bytes(), providers=["CPUExecutionProvider"])
    assert (open_trunk(trunk_file, 1).features(chips) == whole.run(["features"], {"chip": chips})[0]).all()
    model = onnx.load(trunk_file)
    assert len(cut(model, "features").graph.node) == len(model.graph.node) - 1


def test_a_missing_or_foreign_trunk_is_named(tmp_path, trunk_file):
    with pytest.raises(TrunkError, match=r"face\.onnx does not exist"):
        open_trunk(tmp_path / "face.onnx", 1)
    with pytest.raises(TrunkError, match=r"pack\.toml"):
        open_trunk(tmp_path, 1)
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(TrunkError, match=r"text\.onnx"):
        open_trunk(tmp_path / "text.onnx", 1)
    model = onnx.load(trunk_file)
    with pytest.raises(TrunkError, match="no output 'mood'"):
        cut(model, "mood")


def command(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_trains_exports_and_describes(settings, tmp_path):
    sets = [part for setting in settings for part in ("--set", setting)]
    target = tmp_path / "out" / "emotion.onnx"
    arguments = ["emotion", *sets, "--out", tmp_path / "run", "--export", target]
    done = command(*arguments)
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "checkpoint.npz",
        "metrics.jsonl",
        "loss.png",
        "confusion-validation.png",
        "confusion-test.png",
    }
    card = target.with_suffix(".md")
    assert "test (private test) | 40 |" in card.read_text()
    card.write_text(card.read_text() + "\n## Limits\n\nKnown by hand.\n")
    assert command(*arguments).exit_code == 0  # nothing left to train: measures and writes again
    assert card.read_text().endswith("\n## Limits\n\nKnown by hand.\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "data=nowhere.npz"], "nowhere.npz does not exist"),
        (["--set", "epoch=1"], "epoch"),
        (["--config", "absent.toml"], "absent.toml cannot be read"),
    ],
)
def test_the_command_names_what_is_wrong(arguments, said, tmp_path):
    done = command("emotion", "--out", tmp_path, *arguments)
    assert done.exit_code == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_without_torch_the_command_says_what_to_install():
    code = "import sys, runpy; sys.modules['torch'] = None; sys.argv = ['trainer', 'emotion']; "
    code += "runpy.run_module('trainer', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pip install 'cabinsense[trainer]'" in done.stderr
