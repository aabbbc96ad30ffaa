"""A pack is believed only when its manifest is understood and every file is the one that was released."""

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.pack import (
    MANIFEST,
    Anchors,
    DetectorModel,
    FaceModel,
    LandmarkModel,
    Manifest,
    PackError,
    encode_manifest,
    read_manifest,
    verify,
)

ANCHORS = (Anchors(stride=8, sizes=((10.0, 12.5),)), Anchors(stride=16, sizes=((40.0, 50.0), (60.0, 75.0))))
FILES = {"detector.onnx": b"finds faces", "face.onnx": b"tells faces apart"}


def manifest(**changes):
    common = {"licence": "MIT", "source": "made for this test"}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    whole = Manifest(
        schema=1,
        name="small",
        detector=DetectorModel(
            file="detector.onnx", sha256=digests["detector.onnx"], decoder="centerface", **common
        ),
        face=FaceModel(
            file="face.onnx",
            sha256=digests["face.onnx"],
            side=150,
            template=((45.0, 45.0), (105.0, 45.0), (75.0, 75.0), (50.0, 105.0), (100.0, 105.0)),
            dim=128,
            labels=("happy", "sad"),
            threshold=0.9,
            threshold_basis="none",
            **common,
        ),
    )
    return msgspec.structs.replace(whole, **changes)


@pytest.fixture
def folder(tmp_path):
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / MANIFEST).write_bytes(encode_manifest(manifest()))
    return tmp_path


def landmarks(content=b"finds points", **changes):
    told = {"side": 96, "margin": 0.2, "licence": "MIT", "source": "made for this test", **changes}
    return LandmarkModel(file="landmarks.onnx", sha256=hashlib.sha256(content).hexdigest(), **told)


def edit(folder, old, new):
    file = folder / MANIFEST
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_a_whole_pack_is_believed(folder):
    pack = verify(folder)
    assert pack.manifest == manifest()
    assert pack.detector.read_bytes() == FILES["detector.onnx"]
    assert pack.face.read_bytes() == FILES["face.onnx"]


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_named_with_the_remedy(folder, name):
    (folder / name).write_bytes(FILES[name] + b"!")
    with pytest.raises(PackError, match=rf"{name}: SHA-256 is .* the manifest says .*models fetch --force"):
        verify(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(PackError, match=rf"{name}: No such file"):
        verify(folder)


def test_a_folder_in_the_place_of_a_file_is_named(folder):
    (folder / "face.onnx").unlink()
    (folder / "face.onnx").mkdir()
    with pytest.raises(PackError, match=r"face\.onnx: Is a directory"):
        verify(folder)


def test_no_pack_is_said_to_be_none(tmp_path):
    with pytest.raises(PackError, match=r"no pack here .*cabinsense models fetch"):
        verify(tmp_path / "nothing")


@pytest.mark.parametrize(
    "path", ["../face.onnx", "/etc/passwd", "sub/face.onnx", "..", ".hidden", "", "face.onnx\\n", "a\\u0000b"]
)
def test_a_file_outside_the_pack_cannot_be_named(folder, path):
    edit(folder, 'file = "face.onnx"', f'file = "{path}"')
    with pytest.raises(PackError, match=r"pack\.toml: .*face\.file"):
        verify(folder)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('name = "small"', 'name = "small"\ncolour = "red"', "unknown field `colour`"),
        ("side = 150", "side = 150\nwidth = 150", r"unknown field `width` - at `\$\.face`"),
        ("dim = 128", "", "missing required field `dim`"),
        ("dim = 128", 'dim = "128"', r"Expected `int`, got `str` - at `\$\.face\.dim`"),
        ("threshold = 0.9", "threshold = 9.0", "threshold"),
        ("threshold = 0.9", "threshold = nan", "threshold"),
        ("steps = []", "steps = [[5, 0.9], [2, 0.8]]", "steps must rise"),
        ("steps = []", "steps = [[0, 0.9]]", "steps"),
        ("        45.0,\n", "        inf,\n", "template"),
        ("        45.0,\n", "", "template"),
        ('sha256 = "', 'sha256 = "0', "sha256"),
        ("schema = 1", "schema = 2", "schema 2; this version reads schema 1"),
        ("schema = 1", "schema = ", r"pack\.toml: "),
    ],
)
def test_a_manifest_that_is_not_understood_says_where(folder, old, new, complaint):
    edit(folder, old, new)
    with pytest.raises(PackError, match=complaint):
        verify(folder)


def test_anchors_are_read_as_they_were_written(folder):
    detector = msgspec.structs.replace(manifest().detector, decoder="ssd", anchors=ANCHORS)
    (folder / MANIFEST).write_bytes(encode_manifest(manifest(detector=detector)))
    assert verify(folder).manifest.detector.anchors == ANCHORS


@pytest.mark.parametrize(
    ("anchors", "complaint"),
    [
        ('"8"', r"Expected `array`, got `str` - at `\$\.detector\.anchors`"),
        ("[{stride = 8, sizes = []}]", r"anchors\[0\]\.sizes"),
        ("[{stride = 8, sizes = [[10]]}]", r"anchors\[0\]\.sizes\[0\]"),
        ("[{stride = 8, sizes = [[10, 0]]}]", r"anchors\[0\]\.sizes\[0\]\[1\]"),
        ("[{stride = 8, sizes = [[10, -3]]}]", "> 0"),
        ("[{stride = 8, sizes = [[10, inf]]}]", "<= 4096"),
        ("[{stride = 8, sizes = [[10, nan]]}]", r"anchors\[0\]\.sizes\[0\]\[1\]"),
        ("[{stride = 0, sizes = [[10, 10]]}]", r"anchors\[0\]\.stride"),
        ("[{stride = 8, sizes = [[10, 10]], ratio = 1}]", "unknown field `ratio`"),
        (
            "[{stride = 16, sizes = [[9, 9]]}, {stride = 8, sizes = [[9, 9]]}]",
            "strides of the anchors must rise",
        ),
        (
            "[{stride = 8, sizes = [[9, 9]]}, {stride = 8, sizes = [[9, 9]]}]",
            "strides of the anchors must rise",
        ),
        ("[{stride = 24, sizes = [[9, 9]]}]", "stride = 32 must be a multiple"),
        ("[" + "{stride = 8, sizes = [[9, 9]]}, " * 9 + "]", r"length <= 8"),
    ],
)
def test_anchors_that_are_not_understood_say_where(folder, anchors, complaint):
    edit(folder, "anchors = []", f"anchors = {anchors}")
    with pytest.raises(PackError, match=complaint):
        verify(folder)


def test_a_manifest_that_is_no_text_is_refused(folder):
    (folder / MANIFEST).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PackError, match=r"pack\.toml: "):
        verify(folder)


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.floats(-1, 1),
    st.dictionaries(st.integers(1, 2**40), st.floats(-1, 1)),
)
def test_a_manifest_is_read_as_it_was_written(tmp_path_factory, text, threshold, steps):
    folder = tmp_path_factory.getbasetemp()
    face = msgspec.structs.replace(
        manifest().face,
        licence=text,
        labels=(text, "sad"),
        threshold=threshold,
        steps=tuple(sorted(steps.items())),
    )
    (folder / MANIFEST).write_bytes(encode_manifest(manifest(name=text, face=face)))
    assert read_manifest(folder) == manifest(name=text, face=face)


def test_the_digest_names_the_embeddings_not_the_words_about_them():
    original = manifest()
    face, detector = original.face, original.detector
    replace = msgspec.structs.replace
    for same in (
        manifest(name="other", recipe="another"),
        manifest(face=replace(face, licence="another", threshold=0.5)),
        manifest(detector=replace(detector, source="elsewhere")),
    ):
        assert same.digest == original.digest
    for other in (
        manifest(face=replace(face, sha256="0" * 64)),
        manifest(detector=replace(detector, sha256="0" * 64)),
        manifest(detector=replace(detector, decoder="another")),
        manifest(face=replace(face, template=((45, 45.1), *face.template[1:]))),
        manifest(detector=replace(detector, anchors=ANCHORS)),
    ):
        assert other.digest != original.digest


def test_a_pack_may_bring_a_network_for_landmarks(folder):
    assert verify(folder).landmarks is None
    with_points = manifest(landmarks=landmarks())
    (folder / MANIFEST).write_bytes(encode_manifest(with_points))
    with pytest.raises(PackError, match=r"landmarks\.onnx: No such file"):
        verify(folder)
    (folder / "landmarks.onnx").write_bytes(b"finds others")
    with pytest.raises(PackError, match=r"landmarks\.onnx: SHA-256 is"):
        verify(folder)
    (folder / "landmarks.onnx").write_bytes(b"finds points")
    assert verify(folder).manifest == with_points
    assert verify(folder).landmarks == folder / "landmarks.onnx"
    edit(folder, "margin = 0.2", "margin = -0.1")
    with pytest.raises(PackError, match=r"landmarks\.margin"):
        verify(folder)


def test_who_places_the_landmarks_decides_the_embeddings():
    one = manifest(landmarks=landmarks())
    assert manifest(landmarks=landmarks(licence="another")).digest == one.digest
    others = manifest(), manifest(landmarks=landmarks(b"other")), manifest(landmarks=landmarks(margin=0.3))
    assert one.digest not in {other.digest for other in others}
    # Without one it is what it ever was: galleries stay good.
    assert manifest().digest == "24ca610db7915a49a8b81c84b33cce4b454d17e2d3894916fdb46111c20da27c"
