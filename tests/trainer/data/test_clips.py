import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.fer2013 import LABELS
from trainer.data.clips import (
    DFEW,
    ClipFrames,
    count_frames,
    dfew,
    ferv39k,
    frames_of,
    read_clips,
    read_video,
    stretches,
)
from trainer.data.reading import DataError, Pictures, load
from trainer.data.samplers import Endless, Shuffled


def make_clip(folder, frames, kind="{}.jpg"):
    """Frames whose grey is ten times their number, from 1."""
    folder.mkdir(parents=True)
    for number in range(1, frames + 1):
        image = np.full((12, 16, 3), 10 * number, np.uint8)
        assert cv2.imwrite(str(folder / kind.format(number)), image)


def times(clip):
    """Which frames these are, from 1."""
    return [round(float(frame.float().mean()) / 10) for frame in clip]


@pytest.fixture
def ferv(tmp_path):
    root = tmp_path / "FERV39k"
    for scene, expression, number, frames in (("Action", "Happy", "0267", 5), ("War", "Fear", "0001", 12)):
        make_clip(root / "2_ClipsforFaceCrop" / scene / expression / number, frames)
    setups = root / "4_setups" / "All_scenes"
    setups.mkdir(parents=True)
    (setups / "train_All.csv").write_text("Action/Happy/0267 Happy\nWar/Fear/0001 Fear\n")
    (setups / "test_All.csv").write_text("War/Fear/0001 Fear\n")
    return root


@pytest.fixture
def dfew_root(tmp_path):
    root = tmp_path / "DFEW"
    for number in (1, 23, 456):
        make_clip(root / "Clip" / "clip_224x224_16f" / f"{number:05}", 16)
    for split, lines in (("train", "1,1\n23,7\n"), ("test", "456,4\n")):
        folder = root / "EmoLabel_DataSplit" / f"{split}(single-labeled)"
        folder.mkdir(parents=True)
        (folder / "set_2.csv").write_text("video_name,label\n" + lines)
    return root


def test_ferv39k_as_it_is_handed_out(ferv):
    clips = ferv39k(ferv, "train")
    assert [LABELS[clip.label] for clip in clips] == ["happy", "fear"]
    assert [len(frames_of(clip.folder)) for clip in clips] == [5, 12]
    assert [LABELS[clip.label] for clip in ferv39k(ferv, "test")] == ["fear"]


def test_dfew_as_it_is_handed_out(dfew_root):
    clips = dfew(dfew_root, 2, "train")
    assert [LABELS[clip.label] for clip in clips] == ["happy", "fear"]
    assert [clip.folder.name for clip in clips] == ["00001", "00023"]
    assert [LABELS[clip.label] for clip in dfew(dfew_root, 2, "test")] == ["angry"]
    with pytest.raises(DataError, match=r"set_3\.csv"):
        dfew(dfew_root, 3, "train")


def test_a_clip_is_its_middle_frames_in_the_order_of_time(ferv):
    source = ClipFrames(ferv39k(ferv, "train"), 8, 4)
    pictures = Pictures(source)
    clip, label = pictures[1]
    assert clip.shape == (4, 3, 8, 8)
    assert label == LABELS.index("fear")
    assert times(clip) == [2, 5, 8, 11]
    assert times(pictures[0][0]) == [1, 2, 4, 5]


def test_a_clip_shorter_than_asked_for_repeats_frames(ferv):
    clip, _ = Pictures(ClipFrames(ferv39k(ferv, "train"), 8, 10))[0]
    assert times(clip) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_each_epoch_draws_other_frames_and_a_run_that_goes_on_draws_the_same(ferv):
    source = ClipFrames(ferv39k(ferv, "train") * 4, 8, 3, seed=5)
    pictures, sampler = Pictures(source), Shuffled(8, 8, 1, anew=True)

    def epochs(start, count, workers=0):
        loader = load(pictures, Endless(sampler, start), workers)
        return [next(loader)[0] for _ in range(count)]

    from trainer.data.samplers import State

    first = epochs(State(), 3)
    assert all(
        (one == other).all() for one, other in zip(first[1:], epochs(State(1), 2, workers=1), strict=True)
    )
    drawn = {tuple(times(clip)) for epoch in first for clip in epoch}
    assert len(drawn) > 6


def test_batches_of_clips_have_a_dimension_for_time(ferv):
    pictures = Pictures(ClipFrames(ferv39k(ferv, "train"), 8, 6))
    images, labels = next(load(pictures, [[0, 1]]))
    assert images.shape == (2, 6, 3, 8, 8)
    assert labels.shape == (2,)


@given(st.integers(1, 500), st.integers(1, 64), st.one_of(st.none(), st.integers(0, 99)))
def test_one_frame_of_each_stretch(length, count, seed):
    places = stretches(length, count, None if seed is None else np.random.default_rng(seed))
    assert len(places) == count
    assert places == sorted(places)
    for number, place in enumerate(places):
        assert number * length // count <= place <= (number + 1) * length / count
        assert place < length


@pytest.mark.parametrize("kind", ["{}.jpg", "{:05}.jpg", "00001_frame{}.png", "img_{:02}.bmp"])
def test_frames_come_in_the_order_of_their_numbers(tmp_path, kind):
    make_clip(tmp_path / "clip", 12, kind)
    (tmp_path / "clip" / "notes.txt").write_text("no frame")
    assert [file.name for file in frames_of(tmp_path / "clip")] == [
        kind.format(number) for number in range(1, 13)
    ]


def test_a_clip_without_frames_is_passed_over_and_named(ferv):
    folder = ferv / "2_ClipsforFaceCrop" / "Action" / "Happy" / "0267"
    for file in folder.iterdir():
        file.unlink()
    pictures = Pictures(ClipFrames(ferv39k(ferv, "train"), 8, 2))
    assert pictures[0][1] == LABELS.index("fear")
    assert f"{folder}: no frames here" in pictures.report()


def write_video(path, greys):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (16, 16))
    for grey in greys:
        writer.write(np.full((16, 16, 3), grey, np.uint8))
    writer.release()


def test_a_video_gives_the_frames_that_a_folder_would(tmp_path):
    write_video(tmp_path / "00007.avi", range(10, 130, 10))
    make_clip(tmp_path / "00008", 12)
    (tmp_path / "list.csv").write_text("video_name,label\n7,1\n8,1\n")
    clips = read_clips(tmp_path / "list.csv", tmp_path, {"1": "happy"}, digits=5)
    for seed in (None, 3):
        video, folder = (
            times(clip) for clip, _ in map(Pictures(ClipFrames(clips, 8, 4, seed=seed)).make, (0, 1))
        )
        if seed is None:
            assert video == folder == [2, 5, 8, 11]
        assert video == sorted(video)
        assert set(video) <= set(range(1, 13))
    assert count_frames(tmp_path / "00007.avi") == 12
    assert len({ClipFrames([clip], 8, 4).digest(tmp_path) for clip in clips}) == 2


def test_a_video_that_is_damaged_or_cut_off_is_named(tmp_path):
    write_video(tmp_path / "a.avi", range(10, 130, 10))
    with pytest.raises(DataError, match=r"a\.avi: frame 12 cannot be read"):
        read_video(tmp_path / "a.avi", [3, 12])
    (tmp_path / "a.avi").write_bytes((tmp_path / "a.avi").read_bytes()[:300])
    with pytest.raises(DataError, match=r"a\.avi: no frame of this video"):
        count_frames(tmp_path / "a.avi")


def test_a_clip_on_which_people_did_not_agree_is_passed_over(tmp_path):
    (tmp_path / "set.csv").write_text("video_name,label\n1,0\n2,7\n")
    assert [clip.folder.name for clip in read_clips(tmp_path / "set.csv", tmp_path, DFEW, digits=5)] == [
        "00002"
    ]


@pytest.mark.parametrize(
    "text", ["a/b happy\n", "a/b\thappy\n", "a/b,4\n", "a/b HAPPINESS", "\ufeffa/b 4\n\n"]
)
def test_labels_are_names_or_numbers_after_a_comma_blanks_or_a_tab(tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    (clip,) = read_clips(tmp_path / "list.txt", tmp_path, {"4": "happy"})
    assert clip.folder == tmp_path / "a/b"
    assert LABELS[clip.label] == "happy"


@pytest.mark.parametrize(
    "bad", ["a/b", "a/b contempt", "a/b 9", "/a/b happy", "../b happy", "a b happy", "video_name,label"]
)
def test_a_line_of_another_kind_is_told(tmp_path, bad):
    (tmp_path / "list.txt").write_text(f"a/b happy\n{bad}\n")
    with pytest.raises(DataError, match=r"list\.txt, line 2"):
        read_clips(tmp_path / "list.txt", tmp_path, {"4": "happy"})


@given(st.text(max_size=80))
def test_any_text_gives_clips_below_the_root_or_an_error(tmp_path_factory, text):
    root = tmp_path_factory.mktemp("clips")
    (root / "list.txt").write_text(text, "utf-8")
    try:
        clips = read_clips(root / "list.txt", root, {})
    except DataError:
        return
    assert all(clip.folder.is_relative_to(root) and ".." not in clip.folder.parts for clip in clips)


def test_the_digest_follows_the_frames(ferv):
    source = ClipFrames(ferv39k(ferv, "train"), 8, 2)
    before = source.digest(ferv)
    frames_of(source.clips[0].folder)[0].unlink()
    assert source.digest(ferv) != before
    with pytest.raises(DataError, match="does not lie below"):
        source.digest(ferv / "4_setups")
