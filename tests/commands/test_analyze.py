import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.images import read_image


@pytest.fixture
def analyze(tmp_path, pack):
    """Runs the command as a user would; its lines as objects, and the finished process."""
    config = tmp_path / "cabinsense.toml"
    config.write_text(f'pack = "{pack.path}"\n')

    def run(*arguments: str | Path) -> tuple[list[dict], subprocess.CompletedProcess[bytes]]:
        command = [sys.executable, "-m", "agent", "analyze", "--config", str(config), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        return [json.loads(line) for line in done.stdout.decode().splitlines()], done

    return run


def write(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


def test_a_portrait_is_described_in_full(analyze, samples):
    (report,), done = analyze(samples / "obama.jpg")
    assert done.returncode == 0
    assert report["path"] == str(samples / "obama.jpg")
    (face,) = report["faces"]
    assert set(face) == {"box", "score", "landmarks", "quality", "emotion", "pose"}
    height, width = read_image(samples / "obama.jpg").shape[:2]
    x1, y1, x2, y2 = face["box"]
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    assert face["score"] > 0.5
    left_eye, right_eye, nose, left_mouth, right_mouth = face["landmarks"]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert face["quality"]["reasons"] == []
    probabilities = face["emotion"]["probabilities"]
    assert len(probabilities) == 7
    assert sum(probabilities.values()) == pytest.approx(1, abs=0.001)
    assert face["emotion"]["label"] == max(probabilities, key=probabilities.get)
    assert all(abs(face["pose"][angle]) < 30 for angle in ("yaw", "pitch", "roll"))


def test_one_person_is_recognised_in_two_photographs_and_another_is_not(analyze, pack, samples):
    names = "obama.jpg", "obama2.jpg", "obama3.jpg", "biden.jpg"
    reports, _ = analyze("--embedding", *(samples / name for name in names))
    obama, obama2, obama3, biden = (np.float32(report["faces"][0]["embedding"]) for report in reports)
    threshold = pack.manifest.face.threshold
    for embedding in (obama, obama2, obama3, biden):
        assert embedding.shape == (pack.manifest.face.dim,)
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    assert min(obama @ obama2, obama @ obama3, obama2 @ obama3) >= threshold
    assert max(obama @ biden, obama2 @ biden, obama3 @ biden) < threshold


def test_embeddings_are_biometric_and_come_only_when_asked_for(analyze, samples):
    _, done = analyze(samples / "obama.jpg")
    assert b"embedding" not in done.stdout


def test_of_two_faces_the_larger_comes_first(analyze, samples, tmp_path):
    small = cv2.resize(read_image(samples / "obama.jpg"), None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    large = read_image(samples / "biden.jpg")
    scene = np.zeros((max(small.shape[0], large.shape[0]), small.shape[1] + large.shape[1], 3), np.uint8)
    scene[: small.shape[0], : small.shape[1]] = small
    scene[: large.shape[0], small.shape[1] :] = large
    (report,), _ = analyze(write(tmp_path / "two.png", scene))
    first, second = report["faces"]
    assert first["box"][0] >= small.shape[1] - 1
    assert second["box"][2] <= small.shape[1] + 1


def turned_jpeg(image: np.ndarray) -> bytes:
    """A JPEG whose pixels lie on their side and whose EXIF says how to turn them upright (orientation 6)."""
    lying = cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE)
    data = cv2.imencode(".jpg", lying, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def test_a_photograph_taken_with_the_camera_on_its_side_is_turned_upright(analyze, samples, tmp_path):
    upright = read_image(samples / "obama.jpg")
    (tmp_path / "turned.jpg").write_bytes(turned_jpeg(upright))
    plain, turned = analyze(samples / "obama.jpg", tmp_path / "turned.jpg")[0]
    assert turned["faces"][0]["landmarks"] == pytest.approx(np.array(plain["faces"][0]["landmarks"]), abs=3)


def test_one_pixel_shows_no_face(analyze, tmp_path):
    (report,), done = analyze(write(tmp_path / "dot.png", np.full((1, 1, 3), 128, np.uint8)))
    assert report == {"path": str(tmp_path / "dot.png"), "faces": []}
    assert done.returncode == 0


def test_what_cannot_be_read_is_told_in_its_place_and_stops_nothing(analyze, samples, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear driver,")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "no pictures").mkdir()
    cut = (samples / "obama.jpg").read_bytes()[:2000]
    (tmp_path / "cut.jpg").write_bytes(cut)
    wrong = [tmp_path / name for name in ("letter.txt", "missing.jpg", "empty.jpg", "cut.jpg", "no pictures")]
    reports, done = analyze(*wrong, samples / "biden.jpg")
    assert done.returncode == 1
    assert [report["path"] for report in reports] == [*map(str, wrong), str(samples / "biden.jpg")]
    for report in reports[:-1]:
        assert set(report) == {"path", "error"}
        assert report["path"] in report["error"]
    assert len(reports[-1]["faces"]) == 1
    assert b"Traceback" not in done.stderr


def test_of_a_folder_come_its_images_sorted_by_name(analyze, samples, tmp_path):
    album = tmp_path / "album"
    (album / "below").mkdir(parents=True)
    for name in ("c.PNG", "a.png", "b.png", "below/d.png"):
        write(album / name, np.zeros((8, 8, 3), np.uint8))
    (album / "notes.txt").write_text("who is who")
    reports, done = analyze(album)
    assert [Path(report["path"]).name for report in reports] == ["a.png", "b.png", "c.PNG"]
    assert done.returncode == 0


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse names that are not UTF-8")
def test_a_file_whose_name_is_not_utf8_still_gives_valid_json(analyze, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    path.write_bytes(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    broken = path.with_name(path.name + ".txt")
    broken.write_text("not a picture")
    (report, failure), _ = analyze(path, broken)
    assert report["path"].endswith("caf�.png")
    assert "caf�.png.txt" in failure["error"]


def test_a_name_too_long_for_any_file_is_told_like_a_missing_one(analyze, tmp_path):
    (report,), done = analyze(tmp_path / ("x" * 300 + ".jpg"))
    assert "too long" in report["error"]
    assert done.returncode == 1


def test_each_line_comes_as_soon_as_its_image_is_done(tmp_path, pack, samples):
    config = tmp_path / "cabinsense.toml"
    config.write_text(f'pack = "{pack.path}"\n')
    command = [sys.executable, "-m", "agent", "analyze", "--config", str(config)]
    with subprocess.Popen([*command, *[str(samples / "obama.jpg")] * 500], stdout=subprocess.PIPE) as process:
        assert json.loads(process.stdout.readline())["faces"]
        assert process.poll() is None
        process.kill()


def test_without_a_path_the_command_explains_itself(analyze):
    _, done = analyze()
    assert done.returncode == 2
    assert b"PATH" in done.stderr
