"""The task ``emotion`` on clips, in the layouts in which FERV39K and DFEW come, filled with faces of FER2013."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from calibration.fer2013 import LABELS, read_split
from trainer.__main__ import app
from trainer.branch import BranchSettings, ClipBranch
from trainer.clip_source import ClipSource
from trainer.common.job import TrainingError
from trainer.common.settings import ConfigError
from trainer.config import load_config
from trainer.data.reading import DataError, TooMuchDamageError
from trainer.emotion import Data, batches, logits_of, open_source, read_data, train
from trainer.features import open_trunk
from trainer.metrics import measure
from trainer.tasks.emotion import _war_and_uar

FRAMES = 5
NAMES = {"happy": "Happy", "sad": "Sad", "angry": "Angry", "surprise": "Surprise"}


def quiet(what, count, total):
    pass


def command(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="session")
def clips(fer2013):
    """For each of four expressions clips of real faces: lists of frames, uint8 BGR [64, 64, 3]."""
    images, labels = read_split(fer2013, "train")

    def frames(image):
        # A face that comes nearer, as a camera would see it.
        near = [image[k : 48 - k, k : 48 - k] for k in range(FRAMES)]
        return [cv2.cvtColor(cv2.resize(each, (64, 64)), cv2.COLOR_GRAY2BGR) for each in near]

    return {name: [frames(image) for image in images[labels == LABELS.index(name)][:24]] for name in NAMES}


@pytest.fixture(scope="session")
def ferv39k(clips, tmp_path_factory):
    """FERV39K's folders: the first four clips of each expression test."""
    root = tmp_path_factory.mktemp("ferv39k")
    lists = {"train": [], "test": []}
    for name, capital in NAMES.items():
        for number, frames in enumerate(clips[name]):
            clip = f"Action/{capital}/{number:04}"
            folder = root / "2_ClipsforFaceCrop" / clip
            folder.mkdir(parents=True)
            for place, frame in enumerate(frames):
                assert cv2.imwrite(str(folder / f"{place:02}.jpg"), frame)
            lists["test" if number < 4 else "train"].append(f"{clip} {capital}\n")
    setups = root / "4_setups" / "All_scenes"
    setups.mkdir(parents=True)
    for split, lines in lists.items():
        (setups / f"{split}_All.csv").write_text("".join(lines))
    return root


@pytest.fixture
def dfew(clips, tmp_path):
    """DFEW's folders, its clips as videos: 24 to train on, 8 to test with; number 99 is of no one expression."""
    root = tmp_path / "dfew"
    videos = root / "Clip" / "clip_224x224_avi"
    videos.mkdir(parents=True)
    lists = {"train": ["99,0\n"], "test": []}
    numbers = {"happy": 1, "sad": 2, "angry": 4, "surprise": 5}
    for kind, (name, number) in enumerate(numbers.items()):
        for place, frames in enumerate(clips[name][:8]):
            clip = 10 * kind + place
            write_video(videos / f"{clip:05}.avi", frames)
            lists["test" if place < 2 else "train"].append(f"{clip},{number}\n")
    for split, lines in lists.items():
        folder = root / "EmoLabel_DataSplit" / f"{split}(single-labeled)"
        folder.mkdir(parents=True)
        (folder / "set_3.csv").write_text("video_name,label\n" + "".join(lines))
    return root


def write_video(path, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()


@pytest.fixture
def small(trunk_file, tmp_path):
    return [
        f"trunk={trunk_file}",
        f"cache={tmp_path / 'cache'}",
        "branch.stages=[[16, 2], [16, 2]]",
        *("versions=2", "batch=16", "threads=1", "bfloat16=false", "mixup=0", "map_erase=0"),
        *("clips.align=false", "clips.kept=4", "clips.frames=2", "clips.held_out=0.2"),
    ]


def test_ferv39k_to_an_exported_branch(ferv39k, small, tmp_path):
    sets = [*small, f"data={ferv39k}", "clips.kind=ferv39k", "epochs=6", "learning_rate=0.005"]
    sets = [part for each in sets for part in ("--set", each)]
    target = tmp_path / "out" / "emotion.onnx"
    done = command("emotion", *sets, "--out", tmp_path / "run", "--export", target)
    assert done.exit_code == 0, done.output
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert history[-1]["loss"] < history[0]["loss"] - 0.1
    assert {"validation_war", "validation_uar"} <= set(history[-1])
    assert "validation WAR" in done.stdout
    assert "; test WAR" in done.stdout
    assert (tmp_path / "run" / "confusion-test.png").is_file()
    card = target.with_suffix(".md").read_text()
    assert "| FERV39K split | clips |" in card
    assert "| test; accuracy is WAR, balanced accuracy UAR | 16 |" in card


def test_the_plan_says_how_many_clips_and_maps(ferv39k, small, tmp_path):
    sets = [*small, f"data={ferv39k}", "clips.kind=ferv39k", "clips.pooling=attention"]
    done = command(
        "emotion", *[part for each in sets for part in ("--set", each)], "--out", tmp_path, "--dry-run"
    )
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "clips, test │ 16" in said
    assert "pooling over time │ attention" in said
    assert "float32 [16, 2, 64, 17, 17]" in said


def test_what_the_agent_cannot_run_is_not_exported(ferv39k, small, tmp_path):
    sets = [*small, f"data={ferv39k}", "clips.kind=ferv39k", "clips.pooling=max", "epochs=1"]
    sets = [part for each in sets for part in ("--set", each)]
    done = command("emotion", *sets, "--out", tmp_path / "run", "--export", tmp_path / "emotion.onnx")
    assert done.exit_code == 1
    assert "pools by max cannot be exported" in " ".join(done.stderr.split())
    assert not (tmp_path / "emotion.onnx").exists()
    assert (tmp_path / "run" / "confusion-test.png").is_file()


def test_dfew_as_videos_a_damaged_one_counted_and_named(dfew, small):
    (dfew / "Clip" / "clip_224x224_avi" / "00012.avi").write_bytes(b"no video")
    sets = [*small, f"data={dfew}", "clips.kind=dfew", "clips.fold=3", "clips.folder=clip_224x224_avi"]
    source = open_source(load_config(None, sets), quiet)
    data = read_data(source)
    all_labels = np.concatenate([source.labels("train"), source.labels("validation")])
    assert np.bincount(all_labels, minlength=7).tolist() == [6, 0, 0, 6, 6, 6, 0]
    assert len(data.train_labels) + len(data.validation_labels) == 23
    bad = "train" if len(data.train_labels) < len(source.labels("train")) else "validation"
    assert source.damage().startswith(f"{bad}: 1 of ")
    assert "00012.avi: no frame of this video can be read" in source.damage()
    for maps, labels in ((data.train[0], data.train_labels), (data.validation, data.validation_labels)):
        assert len(maps) == len(labels)
        assert all(np.abs(maps[row]).max() > 0 for row in range(len(labels)))  # the damaged one's are zeros
    assert read_data(open_source(load_config(None, sets), quiet)).train_labels.tolist() == (
        data.train_labels.tolist()
    )


def test_too_many_damaged_clips_end_the_run_by_name(dfew, small):
    for file in (dfew / "Clip" / "clip_224x224_avi").iterdir():
        file.write_bytes(b"no video")
    sets = [*small, f"data={dfew}", "clips.kind=dfew", "clips.fold=3", "clips.folder=clip_224x224_avi"]
    source = open_source(load_config(None, [*sets, "clips.damaged=2"]), quiet)
    with pytest.raises(
        TooMuchDamageError, match=r"3 of \d+ items cannot be read; at most 2 [\s\S]*\.avi: no frame"
    ):
        source.maps("train", 0)


def test_a_clip_that_is_trained_on_and_tested_on_is_refused(ferv39k, small, tmp_path):
    lines = "2_ClipsforFaceCrop/Action/Happy/0000 happy\n2_ClipsforFaceCrop/Action/Sad/0000 sad\n"
    root = tmp_path / "own"
    root.mkdir()
    (root / "2_ClipsforFaceCrop").symlink_to(ferv39k / "2_ClipsforFaceCrop")
    (root / "train.csv").write_text(lines)
    (root / "test.csv").write_text(lines.splitlines()[0])
    with pytest.raises(DataError, match=r"Happy/0000 would be trained on and tested on"):
        open_source(load_config(None, [*small, f"data={root}", "clips.kind=lists"]), quiet)


def test_which_clips_validate_does_not_depend_on_where_they_lie(ferv39k, small, tmp_path):
    (tmp_path / "elsewhere").symlink_to(ferv39k)

    def held_out(root):
        source = open_source(load_config(None, [*small, f"data={root}", "clips.kind=ferv39k"]), quiet)
        assert isinstance(source, ClipSource)
        return {clip.folder.relative_to(root).as_posix() for clip in source.clips["validation"]}

    assert held_out(ferv39k) == held_out(tmp_path / "elsewhere")


def test_faces_in_frames_are_aligned_as_the_agent_does_it(lfw, pack, tmp_path):
    photo = cv2.imread(str(sorted((lfw / "George_W_Bush").iterdir())[0]))
    shifted = cv2.warpAffine(photo, np.float32([[1, 0, 20], [0, 1, -12]]), photo.shape[1::-1])
    for clip, frames in {"a": [photo] * 2, "b": [shifted] * 2, "c": [np.zeros_like(photo)] * 2}.items():
        (tmp_path / clip).mkdir()
        for place, frame in enumerate(frames):
            assert cv2.imwrite(str(tmp_path / clip / f"{place}.png"), frame)
    (tmp_path / "train.csv").write_text("a happy\nc sad\n")
    (tmp_path / "test.csv").write_text("b happy\n")
    config = load_config(
        None, [f"data={tmp_path}", f"trunk={pack.path}", "clips.kind=lists", "threads=1", "clips.kept=2"]
    )
    source = ClipSource(config, open_trunk(pack.path, 1), quiet)
    one, other = (source._face_of(image, 150).astype(int) for image in (photo, shifted))
    middles = [image[50:200, 50:200].astype(int) for image in (photo, shifted)]
    assert np.abs(one - other).mean() < 0.3 * np.abs(middles[0] - middles[1]).mean()
    assert source._face_of(np.zeros_like(photo), 150).shape == (150, 150, 3)  # no face: the middle


def test_training_draws_frames_and_evaluation_takes_the_middle_ones():
    config = load_config(
        None,
        ["clips.kind=lists", "clips.kept=9", "clips.frames=3", "mixup=0", "map_erase=0", "batch=4"],
    )
    numbered = np.broadcast_to(np.arange(9, dtype=np.float16)[:, None, None, None], (9, 64, 17, 17))
    maps, labels = np.stack([numbered] * 8), np.arange(8) % 7
    source = SimpleNamespace(config=config)
    data = Data(source, [maps], labels, maps, labels)
    drawn = []
    for epoch in range(3):
        for chosen, _ in batches(config, data, epoch):
            assert chosen.shape == (4, 3, 64, 17, 17)
            places = chosen[:, :, 0, 0, 0].long()
            assert ((places // 3) == torch.arange(3)).all()  # one of each stretch of three, in order
            drawn += map(tuple, places.tolist())
    assert len(set(drawn)) > 8

    class Seen(ClipBranch):
        def forward(self, features):
            self.places = features[:, :, 0, 0, 0]
            return super().forward(features)

    model = Seen(BranchSettings(stages=((8, 2),)), "mean").eval()
    logits_of(model, maps, config)
    assert (model.places == torch.tensor([1.0, 4.0, 7.0])).all()


def test_war_is_over_clips_and_uar_over_expressions():
    # Four happy clips, three of them found; one sad clip, taken for happy: 3 of 5, and the mean of 3/4 and 0/1.
    logits = np.full((5, 7), -5, np.float32)
    logits[:, 3] = 0
    logits[0, [2, 3]] = 0, -5
    metrics = measure(logits, np.array([3, 3, 3, 3, 4]))
    assert _war_and_uar(metrics) == "WAR 60.00 %, UAR 37.50 %"


def test_teachers_are_refused_for_clips(ferv39k, small):
    sets = [*small, f"data={ferv39k}", "clips.kind=ferv39k", "teachers=['a']"]
    with pytest.raises(TrainingError, match="teachers answer images"):
        open_source(load_config(None, sets), quiet)


def test_an_image_branch_goes_on_on_clips_and_back(ferv39k, faces, small, tmp_path):
    def trained(name, *sets):
        config = load_config(None, [*small, *sets, "limit=32", "epochs=1"])
        train(config, read_data(open_source(config, quiet)), tmp_path / name, quiet)
        return tmp_path / name

    images = trained("images", f"data={faces}")
    clips = trained("clips", f"data={ferv39k}", "clips.kind=ferv39k", f"start={images}")
    trained("back", f"data={faces}", f"start={clips}")


@pytest.mark.parametrize("wrong", ["pooling=median", "fold=6", "frames=0", "kind=webm", "held_out=1"])
def test_settings_of_clips_are_bounded(small, wrong):
    with pytest.raises(ConfigError, match=rf"clips\.{wrong.partition('=')[0]}"):
        load_config(None, [*small, f"clips.{wrong}"])
