"""A trained part goes into a pack beside the parts of another, or nothing changes."""

import msgspec
import pytest
from msgspec import UNSET

from engines.pack import MANIFEST, LandmarkModel, Model, encode_manifest, file_digest, verify
from trainer.common import packs
from trainer.common.proof import ExportError


@pytest.fixture
def base(pack, tmp_path):
    """A pack of every part; their files say who they are."""
    folder = tmp_path / "base"
    folder.mkdir()
    landmarks = LandmarkModel(file="points.onnx", sha256="", licence="", source="", side=96, margin=0.1)
    manifest = msgspec.structs.replace(pack.manifest, landmarks=landmarks)
    for field in ("detector", "face", "landmarks", "adaptation"):
        model = getattr(manifest, field)
        (folder / model.file).write_text(f"{field} of the base")
        named = msgspec.structs.replace(model, sha256=file_digest(folder / model.file))
        manifest = msgspec.structs.replace(manifest, **{field: named})
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))
    return verify(folder)


def writing(base, part, text="own"):
    """Writes a part that differs from the base's in its file and its licence."""

    def write(file):
        file.write_text(text)
        model = getattr(base.manifest, part)
        return msgspec.structs.replace(model, file=file.name, sha256=file_digest(file), licence=text)

    return write


@pytest.mark.parametrize("part", ["detector", "face", "landmarks"])
def test_one_part_is_another_and_the_rest_is_as_it_was(base, tmp_path, part):
    made = packs.pack_with(tmp_path / "far" / "mine", "mine", base, part, writing(base, part))
    assert verify(tmp_path / "far" / "mine") == made
    assert (made.manifest.name, made.manifest.recipe) == ("mine", "")
    assert made.manifest.digest != base.manifest.digest
    files = {MANIFEST}
    for field in ("detector", "face", "landmarks", "adaptation"):
        model = getattr(made.manifest, field)
        if field == part:
            assert model.licence == "own"
            assert (made.path / model.file).read_text() == "own"
        elif (part, field) == ("face", "adaptation"):  # a bank is of the norms of one network
            assert model is UNSET
        else:
            assert model == getattr(base.manifest, field)
        files |= {model.file} if isinstance(model, Model) else set()
    assert {file.name for file in made.path.iterdir()} == files


def test_two_parts_of_one_name_do_not_meet_in_a_file(base, tmp_path):
    (base.path / "face.onnx").rename(base.path / "detector.onnx.face")
    (base.path / "detector.onnx").rename(base.path / "face.onnx")
    named = {
        "face": msgspec.structs.replace(base.manifest.face, file="detector.onnx.face"),
        "detector": msgspec.structs.replace(base.manifest.detector, file="face.onnx"),
    }
    (base.path / MANIFEST).write_bytes(encode_manifest(msgspec.structs.replace(base.manifest, **named)))
    other = verify(base.path)
    made = packs.pack_with(tmp_path / "mine", "mine", other, "face", writing(other, "face"))
    assert made.detector.read_text() == "detector of the base"
    assert made.face.read_text() == "own"


def test_a_part_that_cannot_be_made_leaves_the_old_pack(base, tmp_path):
    old = packs.pack_with(tmp_path / "mine", "mine", base, "face", writing(base, "face"))

    def write(file):
        file.write_text("half of it")
        raise ExportError("it differs")

    with pytest.raises(ExportError, match="it differs"):
        packs.pack_with(tmp_path / "mine", "mine", base, "face", write)
    assert verify(tmp_path / "mine") == old
    assert old.face.read_text() == "own"


def test_what_ends_in_onnx_is_the_part_alone(base, tmp_path):
    packs.export(tmp_path / "far" / "own.onnx", "mine", base, "detector", writing(base, "detector"))
    assert {file.name for file in (tmp_path / "far").iterdir()} == {"own.onnx"}
    packs.export(tmp_path / "far" / "own", "mine", base, "detector", writing(base, "detector"))
    assert verify(tmp_path / "far" / "own").detector.read_text() == "own"


@pytest.mark.parametrize("name", ["mine", "mine.onnx"])
def test_a_place_that_cannot_be_written_is_told_with_the_remedy(base, tmp_path, name):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ExportError, match=r"file.*choose another folder"):
        packs.export(tmp_path / "file" / name, "mine", base, "face", writing(base, "face"))
