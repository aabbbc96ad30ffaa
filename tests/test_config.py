"""A configuration is either understood completely or refused by name."""

import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Config, ConfigError, load, parse
from agent.reference import config_reference

ONE_CAMERA = b'[[cameras]]\nname = "cabin"\nsource = "/dev/video0"\n'


def test_an_empty_file_is_all_defaults():
    assert parse(b"", "x.toml") == Config()


def test_a_byte_order_mark_is_no_mistake():
    assert parse(b"\xef\xbb\xbf[detector]\nthreshold = 0.4", "x.toml").detector.threshold == 0.4


def test_a_camera_needs_only_a_name_and_a_source():
    (camera,) = parse(ONE_CAMERA, "x.toml").cameras
    assert (camera.name, camera.source) == ("cabin", "/dev/video0")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"colour = 1", "colour"),
        (b"[detector]\ntreshold = 0.5", "treshold"),
        (b"[detector]\nthreshold = 1.5", "detector.threshold"),
        (b"[detector]\nwidth = 333", "detector.width"),
        (b'[detector]\nwidth = "wide"', "detector.width"),
        (b"[detector", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
        (ONE_CAMERA * 2, "two cameras are called cabin"),
        (b'[[cameras]]\nname = "a/b"\nsource = "0"', "cameras[0].name"),
        (b'[[cameras]]\nname = "a"', "source"),
        (b"[quality]\nmin_brightness = 200\nmax_brightness = 100", "min_brightness"),
        (b'[events]\nencoding = "xml"', "xml"),
        (b"[identity]\nthreshold = 95.0", "identity.threshold"),
        (b"[identity]\nthreshold = nan", "identity.threshold"),
        (b"[identity]\nvotes = 10\nwindow = 3", "identity.votes"),
        (b"[quality]\nmin_eye_distance = inf", "quality.min_eye_distance"),
        (b'[events]\nendpoint = "ipc:///a"\n[control]\nendpoint = "ipc:///a"', "must differ"),
    ],
)
def test_a_mistake_is_named_with_its_file(text, told):
    with pytest.raises(ConfigError, match=r"x\.toml") as caught:
        parse(text, "x.toml")
    assert told in str(caught.value)


def test_a_file_that_is_not_there_is_an_error_only_when_it_was_asked_for(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CABINSENSE_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load()
    monkeypatch.delenv("CABINSENSE_CONFIG")
    monkeypatch.setattr("agent.config.SYSTEM_PATH", tmp_path / "none.toml")
    assert load() == Config()
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml")


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_parser(data):
    with contextlib.suppress(ConfigError):
        assert isinstance(parse(data, "x.toml"), Config)


def test_every_key_is_described():
    text = config_reference(Config)
    for line in text.splitlines():
        if line.startswith("| `"):
            assert len(line.split(" | ")[-1].strip(" |")) > 10, line
    for table in msgspec.structs.fields(Config):
        assert table.name in text


def test_the_reference_in_the_docs_is_current():
    """`cabinsense config reference > docs/configuration.md` makes it anew."""
    path = Path(__file__).parent.parent / "docs" / "configuration.md"
    assert path.read_text() == config_reference(Config)
