"""The task ``detector`` learns from real photographs, goes on where it stopped, and ends as a pack that finds faces."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from calibration.faces import FaceFinder, read_image
from trainer.__main__ import app
from trainer.common import loop
from trainer.common.distributed import World
from trainer.common.settings import ConfigError, load_settings
from trainer.common.stepped import pixels
from trainer.data.canvas import FACE, NEITHER
from trainer.data.wider import Marked
from trainer.detector.network import flat
from trainer.losses import detection
from trainer.tasks import load
from trainer.tasks.detector import assign
from trainer.tasks.marked import split


def quiet(what, count, total):
    pass


@pytest.fixture(scope="module")
def photographs(lfw, tmp_path_factory) -> Path:
    """A folder with one photograph of each of 24 people."""
    root = tmp_path_factory.mktemp("photographs")
    for photo in sorted(lfw.glob("*/*_0001.jpg"))[:24]:
        (root / photo.parent.name).mkdir()
        shutil.copy(photo, root / photo.parent.name / photo.name)
    return root


@pytest.fixture(scope="module")
def settings(photographs, pack, tmp_path_factory) -> list[str]:
    """Settings of a run of seconds."""
    return [
        f"pictures.root={photographs}",
        f"pictures.pack={pack.path}",
        f"pictures.keep={tmp_path_factory.mktemp('kept')}",
        "pictures.held_out=0.4",
        "canvas.side=96",
        "width=0.5",
        "batch=8",
        "steps=24",
        "interval=4",
        "evaluate=0",
        "threads=1",
        "ema=0.5",
    ]


def job_of(settings, *more):
    task = load("detector")
    return task.build(load_settings(task.settings, None, [*settings, *more]), World(), quiet)


def losses(out):
    return [line["loss"] for line in loop.read_history(out)]


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("run")
    job = job_of(settings)
    return job, loop.train(job, out, quiet), out


def test_it_learns_from_real_photographs(run):
    _, _, out = run
    found = losses(out)
    assert np.mean(found[-2:]) < 0.85 * found[0]
    last = loop.read_history(out)[-1]
    assert {"recall", "false_alarms", "average_precision", "faces", "places"} <= last.keys()


def test_it_learns_where_one_face_is(settings, tmp_path):
    """Over and over the same few canvases: it must find the faces in them."""
    job = job_of(settings, "ema=0", "steps=60", "interval=60", "learning_rate=0.005", "warmup=0.1")
    batch = next(job.batches(0))
    job.batches = lambda interval: iter([batch] * 60)
    job.evaluate = lambda module: {}
    module = loop.train(job, tmp_path, quiet).train()
    with torch.inference_mode():
        logits, offsets = flat(module.network(pixels(batch["images"])))
    face = batch["labels"] == 1
    assert (logits[face] > logits[batch["labels"] == 0].quantile(0.99)).float().mean() > 0.8
    wanted = detection.decode(batch["targets"][face], job._anchors.expand(8, -1, -1)[face])
    found = detection.decode(offsets[face], job._anchors.expand(8, -1, -1)[face])
    assert detection.overlap(found, wanted).diagonal().median() > 0.5


def test_an_interrupted_run_goes_on_as_one_that_was_not(settings, tmp_path):
    loop.train(job_of(settings), tmp_path / "cut", quiet, stop_after=1)
    cut, whole = (
        loop.train(job_of(settings), tmp_path / out, quiet, stop_after=2) for out in ("cut", "whole")
    )
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, cut.state_dict()[name]), name


def test_nobody_held_out_is_learnt_from(run):
    job, _, _ = run
    sides = [
        {each.path.split("/")[0] for each in side}
        for side in (job.pictures.training, job.pictures.choosing, job.pictures.reporting)
    ]
    assert all(sides)
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]


def test_the_end_is_a_pack_that_runs_and_pictures_of_the_run(run, settings, photographs, tmp_path):
    job, module, _ = run
    told = []
    target = tmp_path / "packs" / "own"
    load("detector").finish(job, module, tmp_path, target, quiet, told.append)
    assert "faces on" in told[0]
    assert "false alarms a picture" in told[0]
    assert (tmp_path / "precision-recall.png").stat().st_size > 5000
    finder = FaceFinder(target)
    for photo in sorted(photographs.glob("*/*.jpg"))[:2]:
        for face in finder.find(read_image(photo)):
            assert face.score >= 0.5
    finder.close()


def test_quantised_fine_tuning_starts_from_a_run_and_is_exported(run, settings, tmp_path):
    _, _, out = run
    more = ("steps=4", "interval=2", "evaluate=1", "learning_rate=0.0003")  # it goes on behind an evaluation
    job = job_of(settings, f"start={out}", "quantise=true", *more)
    module = loop.train(job, tmp_path / "run", quiet)
    found = losses(tmp_path / "run")
    assert found[-1] < 1.3 * losses(out)[-1]
    told = []
    load("detector").finish(job, module, tmp_path, tmp_path / "own.onnx", quiet, told.append)
    props = {each.key: int(each.value) for each in onnx.load(tmp_path / "own.onnx").metadata_props}
    assert len(props) > 20
    assert all(key.startswith("bits.") for key in props)


def test_boxes_of_a_list_are_learnt_as_well(settings, photographs, tmp_path):
    lines = []
    for photo in sorted(photographs.glob("*/*.jpg")):
        lines += [photo.relative_to(photographs).as_posix(), "1", "75 70 95 115 0 0 0 0 0 0"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    job = job_of(settings, f"pictures.boxes={tmp_path / 'list.txt'}", "steps=12")
    assert job.pictures.training[0].boxes.tolist() == [[75, 70, 170, 185]]
    loop.train(job, tmp_path, quiet, stop_after=2)
    found = losses(tmp_path)
    assert found[-1] < found[0]


def test_the_plan_says_what_would_be_done_and_nothing_is_written(settings, tmp_path):
    sets = [part for setting in settings for part in ("--set", setting)]
    result = CliRunner().invoke(app, ["detector", "--dry-run", "--out", str(tmp_path / "out"), *sets])
    assert result.exit_code == 0, result.output
    for said in ("pictures to learn from", "pictures held out", "96 pixels", "parameters, all", "time"):
        assert said in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (["quantise=true"], "name its run with start"),
        (["augment.yaw=10"], r"augment\.yaw would move faces"),
        (["augment.flip=0.5"], r"augment\.flip would move faces"),
        (["canvas.side=100"], r"canvas\.side"),
        (["canvas.cells=[0, 0]"], r"canvas\.cells are all 0"),
        (["pictures.sure=2"], r"pictures\.sure"),
        (["anchors=3"], "unknown field `anchors`"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, wrong, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_settings(load("detector").settings, None, [*settings, *wrong])


def marked(path, faces=1):
    return Marked(path, np.zeros((faces, 4), np.float32), np.zeros(faces, bool))


def test_few_folders_are_no_people_and_single_pictures_are_split():
    pictures = [marked(f"holiday/{number}.jpg") for number in range(200)]
    training, choosing, reporting = split(pictures, 0.2)
    assert len(training) + len(choosing) + len(reporting) == 200
    assert 120 < len(training) < 185
    with pytest.raises(ConfigError, match="no face is left to be"):
        split(pictures[:2], 0.2)
    with pytest.raises(ConfigError, match="no face is left to be"):
        split([marked(each.path, 0) for each in pictures], 0.2)


def test_anchors_of_a_canvas_by_hand():
    anchors = torch.tensor(
        [
            [20, 20, 20, 20],
            [24, 20, 20, 20],
            [27, 20, 20, 20],
            [60, 20, 20, 20],
            [64, 20, 20, 20],
            [90, 90, 20, 20],
        ]
    ).float()
    boxes = torch.tensor([[10, 10, 30, 30], [50, 10, 70, 30], [0, 0, 0, 0]]).float()
    kinds = torch.tensor([FACE, NEITHER, 0], dtype=torch.uint8)
    labels, targets = assign(boxes, kinds, anchors)
    # On the face; overlap 2/3; 0.48, so neither; on and near what does not count; far from everything.
    assert labels.tolist() == [1, 1, detection.NEITHER, detection.NEITHER, detection.NEITHER, 0]
    assert targets[0].tolist() == [0, 0, 0, 0]
    assert targets[1].tolist() == pytest.approx([-4 / 20 / 0.1, 0, 0, 0])
    nothing, _ = assign(boxes[:0], kinds[:0], anchors)
    assert nothing.tolist() == [0] * 6
