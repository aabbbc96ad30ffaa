"""The default pack: the same bytes everywhere, whole or not there, and made again only when there is a reason."""

import hashlib
import shutil

import numpy as np
import onnx
import pytest

from agent import paths
from agent.perception.detector import DECODERS
from engines.onnxruntime_engine import OnnxRuntimeEngine, SessionSettings
from engines.pack import MANIFEST, PackError, verify
from engines.sources import centerface, default_pack
from engines.sources.archives import CENTERFACE, FACE_RESNET
from engines.sources.dlib_format import read_layers
from engines.sources.dlib_resnet import face_network

# A gallery is bound to these bytes. Whoever changes a conversion changes them on purpose, and says so to users: every
# person must be enrolled again.
DETECTOR_SHA256 = "4535bea232e8770f67e6ae70ea888c8ba1439d083050da8656ae774d43f1e782"
TRUNK_SHA256 = "7ea34dfe79589ab3312c5a05eddfdfdcbdb5b66f803775aafb404c59c5aef1ea"


@pytest.fixture
def offline(monkeypatch):
    """No way to fetch anything."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


@pytest.fixture
def own_pack(pack, tmp_path):
    """A copy of the pack that a test may damage."""
    return shutil.copytree(pack.path, tmp_path / "packs" / "default")


def make(target, sources=None, **options):
    return default_pack.make(target, sources or paths.cache_dir() / "sources", lambda *_: None, **options)


def contents(folder):
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


@pytest.mark.parametrize(
    ("convert", "published", "sha256"),
    [
        (lambda file: centerface.detector(onnx.load(str(file))), CENTERFACE, DETECTOR_SHA256),
        (lambda file: face_network(read_layers(file.read_bytes())), FACE_RESNET, TRUNK_SHA256),
    ],
    ids=["detector", "face"],
)
def test_a_conversion_gives_the_same_bytes_everywhere(sources, convert, published, sha256):
    model = convert(sources[published]).SerializeToString(deterministic=True)
    assert hashlib.sha256(model).hexdigest() == sha256


def test_the_manifest_says_what_the_models_are(pack):
    face = pack.manifest.face
    engine = OnnxRuntimeEngine.load(pack.face, SessionSettings(threads=1, dims={"N": 1}))
    assert {spec.name: spec.shape for spec in engine.inputs} == {"chip": (1, face.side, face.side, 3)}
    assert {spec.name: spec.shape for spec in engine.outputs} == {
        "embedding": (1, face.dim),
        "emotion": (1, len(face.labels)),
    }
    template = np.array(face.template)
    assert ((template > 0) & (template < face.side)).all()
    assert pack.manifest.detector.decoder in DECODERS
    side = pack.manifest.detector.stride
    detector = OnnxRuntimeEngine.load(
        pack.detector, SessionSettings(threads=1, dims={"H": side, "W": 2 * side})
    )
    assert {spec.name: spec.shape for spec in detector.inputs} == {"image": (1, side, 2 * side, 3)}


def test_a_whole_pack_is_left_alone_and_needs_no_network(own_pack, tmp_path, offline):
    before = contents(own_pack)
    made = make(own_pack, tmp_path / "no_sources")
    assert made == verify(own_pack)
    assert contents(own_pack) == before
    assert not (tmp_path / "no_sources").exists()


def test_a_damaged_pack_is_made_anew_from_what_was_fetched(own_pack, sources, pack, offline):
    (own_pack / "face.onnx").write_bytes(b"")
    assert make(own_pack).manifest == pack.manifest
    assert verify(own_pack).manifest == pack.manifest
    assert {file.name for file in own_pack.parent.iterdir()} == {"default", ".default.lock"}


def test_a_pack_of_another_version_is_made_anew(own_pack, sources, pack, offline):
    manifest = own_pack / MANIFEST
    manifest.write_text(manifest.read_text().replace(pack.manifest.recipe, "0" * 64))
    assert make(own_pack).manifest == pack.manifest


def test_force_makes_the_same_pack_anew(own_pack, sources, pack, offline):
    before = contents(own_pack)
    assert make(own_pack, force=True).manifest == pack.manifest
    assert all(contents(own_pack)[name] > before[name] for name in before)


def test_what_a_killed_build_left_behind_is_no_obstacle(own_pack, sources, pack, offline):
    shutil.move(own_pack, own_pack.with_name(".default.new"))
    (own_pack.with_name(".default.new") / "detector.onnx").write_bytes(b"half")
    own_pack.with_name(".default.old").mkdir()
    assert make(own_pack).manifest == pack.manifest
    assert {file.name for file in own_pack.parent.iterdir()} == {"default", ".default.lock"}


def test_without_network_and_sources_the_old_pack_stays(own_pack, tmp_path, offline):
    before = contents(own_pack)
    with pytest.raises(Exception, match="cannot be fetched: the package index does not have it"):
        make(own_pack, tmp_path / "no_sources", force=True)
    assert contents(own_pack) == before


def test_a_place_that_cannot_be_written_is_named(tmp_path, offline):
    (tmp_path / "packs").write_bytes(b"a file where a folder must be")
    with pytest.raises(PackError, match=r"packs.*set CABINSENSE_DATA"):
        make(tmp_path / "packs" / "default")
