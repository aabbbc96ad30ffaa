"""What a teacher has said once is on disk for its owner alone, whole or not at all, and never taken for another's."""

import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.teachers.interface import LOGITS, MAP, SUMMARY, TeacherError
from trainer.teachers.kept import ask, at_side, keep


class Source:
    """Pictures uint8 [n, 3, side, side] as a source."""

    def __init__(self, pictures):
        self.pictures = pictures
        self.labels = np.arange(len(pictures))

    def read(self, index):
        return self.pictures[index].permute(1, 2, 0).numpy()

    def name(self, index):
        return f"picture {index}"


class Teacher:
    """Says what it sees, coarsely; after some pictures it may be cut off."""

    side = 32
    sha256 = "a"

    def __init__(self, patience=1000):
        self.patience = patience

    def __call__(self, pictures):
        self.patience -= len(pictures)
        if self.patience < 0:
            raise KeyboardInterrupt
        seen = pictures.float()
        return {SUMMARY: seen[:, :, 0].flatten(1), MAP: seen, LOGITS: seen[:, 0, :7, 0]}


def kept(faces, root, teacher=None, digest="faces", grid=4, **more):
    teacher, source = teacher or Teacher(), Source(faces)
    names = (SUMMARY, MAP, LOGITS)
    return keep(teacher, names, source, digest, grid, more, root, "t", 0, 0, lambda *_: None)


def test_it_is_what_the_teacher_says_of_faces_and_of_their_mirror_images(faces, tmp_path):
    mirrored = torch.tensor([True, False, True])
    items = torch.tensor([4, 1, 0])
    found = kept(faces, tmp_path)(items, mirrored)
    shown = torch.where(mirrored[:, None, None, None], faces[items].flip(-1), faces[items])
    said = ask(Teacher(), shown, 4)
    assert torch.equal(found[SUMMARY], said[SUMMARY])
    assert torch.equal(found[LOGITS], said[LOGITS])
    assert torch.equal(found[MAP], said[MAP].half().float())
    assert said[MAP].shape == (3, 3, 4, 4)


def test_found_again_it_is_the_same_to_the_bit_and_nobody_is_asked(faces, tmp_path):
    everything = torch.arange(6), torch.arange(6) % 2 == 0
    first = kept(faces, tmp_path)
    again = kept(faces, tmp_path, Teacher(patience=0))
    anew = kept(faces, tmp_path / "elsewhere")
    for name, value in first(*everything).items():
        assert torch.equal(again(*everything)[name], value)
        assert torch.equal(anew(*everything)[name], value)


def test_other_faces_another_teacher_or_another_question_have_a_folder_of_their_own(faces, tmp_path):
    class Other(Teacher):
        sha256 = "b"

    folders = {
        kept(faces, tmp_path, **more).folder
        for more in ({}, {"digest": "others"}, {"teacher": Other()}, {"grid": 3}, {"side": 40})
    }
    assert len(folders) == 5


def test_only_its_owner_can_read_it(faces, tmp_path):
    folder = kept(faces, tmp_path).folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_what_was_cut_off_leaves_nothing(faces, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        kept(faces, tmp_path, Teacher(patience=7))
    assert not list(tmp_path.iterdir())
    kept(faces, tmp_path)


def test_a_damaged_file_is_named(faces, tmp_path):
    folder = kept(faces, tmp_path).folder
    for name, damage in (
        ("summary.npy", lambda file: file.write_bytes(b"no array")),
        ("map.npy", lambda file: np.save(file, np.zeros((2, 5, 3), np.float16))),
        ("logits.npy", Path.unlink),
    ):
        file = folder / name
        before = file.read_bytes()
        damage(file)
        with pytest.raises(TeacherError, match=rf"{name}.*delete its folder"):
            kept(faces, tmp_path)
        file.write_bytes(before)
    (tmp_path / "file").touch()
    with pytest.raises(TeacherError, match="another folder for the features"):
        kept(faces, tmp_path / "file" / "below")


def test_a_smaller_picture_is_an_average(faces):
    small = at_side(faces, 30)
    assert small.dtype == torch.uint8
    assert torch.allclose(small.float().mean((2, 3)), faces.float().mean((2, 3)), atol=1.5)
    assert at_side(faces, 150) is faces
