import pickle
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import UserError
from tests.trainer.data.records import WORD, packed, write, written
from trainer.data.reading import Pictures, load
from trainer.data.recordio import MAGIC, RecordError, RecordFile, RecordPictures, read_index, read_list
from trainer.data.samplers import InOrder


def face(number: int, kind: str = ".png") -> bytes:
    """A picture of 8 × 8 whose red channel is ``number``."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, :, 2] = number
    return cv2.imencode(kind, image)[1].tobytes()


def insightface() -> dict[int, bytes]:
    """Three people with two, one and three pictures, as InsightFace packs them."""
    records = {0: packed([7.0, 10.0], b"")}
    owners = [0, 0, 1, 2, 2, 2]
    for key, owner in enumerate(owners, 1):
        records[key] = packed([float(owner), 0.0] if key % 2 else float(owner), face(key), key)
    for key, span in zip((7, 8, 9), ((1, 3), (3, 4), (4, 7)), strict=True):
        records[key] = packed([float(span[0]), float(span[1])], b"")
    return records


@pytest.fixture
def rec(tmp_path):
    return write(tmp_path / "train.rec", insightface())


def test_insightfaces_pictures_come_with_the_people_that_the_identity_records_tell(rec):
    source = RecordPictures(rec, 8)
    assert source.labels.tolist() == [0, 0, 1, 2, 2, 2]
    assert source.keys.tolist() == [1, 2, 3, 4, 5, 6]
    assert [int(source.read(item)[0, 0, 0]) for item in range(6)] == [1, 2, 3, 4, 5, 6]
    assert not source.read(0)[:, :, 1:].any()
    assert source.left_out_count == 0


def test_without_identity_records_each_record_s_own_label_counts(tmp_path):
    records = {key: packed(float(label), face(key)) for key, label in enumerate((30, 10, 30, 20), 1)}
    source = RecordPictures(write(tmp_path / "a.rec", records), 8)
    assert source.labels.tolist() == [2, 0, 2, 1]


def test_a_first_record_that_is_a_picture_is_not_taken_for_insightface_s(tmp_path):
    records = {key: packed(float(key % 2), face(key)) for key in range(4)}
    assert RecordPictures(write(tmp_path / "a.rec", records), 8).labels.tolist() == [0, 1, 0, 1]


def test_beyond_what_float32_can_count_the_own_labels_are_taken(tmp_path):
    big = float(2**24 + 2)
    records = {0: packed([big, big], b"")} | {key: packed(float(key // 2), face(key)) for key in (1, 2, 3)}
    assert RecordPictures(write(tmp_path / "a.rec", records), 8).labels.tolist() == [0, 1, 1]


def test_another_order_other_classes_or_another_file_is_another_digest(rec, tmp_path):
    digest = RecordPictures(rec, 8).digest()
    assert RecordPictures(write(tmp_path / "copy.rec", insightface()), 16).digest() == digest
    for changed in (
        {8: packed([3.0, 5.0], b""), 9: packed([5.0, 7.0], b"")},
        {6: packed(2.0, face(6) + bytes(4))},
    ):
        assert RecordPictures(write(tmp_path / "other.rec", insightface() | changed), 8).digest() != digest


def test_a_list_decides_the_classes_and_which_records_are_used(rec):
    listed = rec.with_suffix(".lst")
    listed.write_text("3\t5.0\ta/3.jpg\n1\t4\t0.5\ta/1.jpg\n6\t5\ta/6.jpg\n")
    source = RecordPictures(rec, 8, listed=listed)
    assert dict(zip(source.keys.tolist(), source.labels.tolist(), strict=True)) == {3: 1, 1: 0, 6: 1}


@pytest.mark.parametrize(
    "line",
    ["1\t2\n", "x\t1\ta.jpg\n", "1\t0.5\ta.jpg\n", "-1\t1\ta.jpg\n", "1\tnan\ta.jpg\n", "1\t/a.jpg\t0\n"],
)
def test_a_list_of_another_kind_is_told_with_its_line(tmp_path, line):
    (tmp_path / "a.lst").write_text("7\t1\ta.jpg\n" + line)
    with pytest.raises(RecordError, match=r"a\.lst, line 2"):
        read_list(tmp_path / "a.lst")


@given(
    st.lists(st.one_of(st.binary(max_size=9), st.just(WORD), st.just(b"abcd")), max_size=12),
    st.integers(0, 3),
)
def test_every_content_comes_back_also_where_it_holds_the_magic_number(tmp_path_factory, pieces, shift):
    content = bytes(shift) + b"".join(pieces)
    path = tmp_path_factory.mktemp("rec") / "a.rec"
    before = written(b"before")
    path.write_bytes(before + written(content) + written(b"after"))
    assert RecordFile(path).bytes_of(len(before)) == content


def test_a_magic_number_within_the_header_does_no_harm(tmp_path):
    record = struct.pack("<IfQQ", 0, 3.0, MAGIC, 0) + face(9)
    assert written(record).count(WORD) == 2
    source = RecordPictures(write(tmp_path / "a.rec", {1: record, 2: packed(1.0, face(4))}), 8)
    assert source.labels.tolist() == [1, 0]
    assert source.read(0)[0, 0, 0] == 9


def test_workers_read_the_same_file_at_once(rec):
    pictures = Pictures(RecordPictures(rec, 8))
    assert pictures[0][1] == 0  # the parent has the file open before it forks
    batches = list(load(pictures, InOrder(6, 1), workers=2))
    assert [int(images[0, 0, 0, 0]) for images, _ in batches] == [1, 2, 3, 4, 5, 6]
    assert (pickle.loads(pickle.dumps(pictures.source)).read(5) == pictures.source.read(5)).all()  # noqa: S301 - its own bytes


def test_a_record_that_is_no_picture_is_named_with_file_key_and_place(tmp_path):
    path = write(tmp_path / "a.rec", {1: packed(0.0, face(1)), 2: packed(1.0, b"no picture")})
    pictures = Pictures(RecordPictures(path, 8))
    assert pictures[1][1] == 0
    place = read_index(path.with_suffix(".idx"))[1][1]
    assert f"{path}, record 2 at byte {place}: not an image" in pictures.report()


def test_an_index_beyond_the_end_is_damage_of_that_record(tmp_path):
    path = write(tmp_path / "a.rec", {1: packed(0.0, face(1)), 2: packed(1.0, face(2))})
    with path.with_suffix(".idx").open("a") as index:
        index.write("3\t1000000\n4\t999999999999999999\n5\t2\n")
    source = RecordPictures(path, 8, limit=3)
    assert source.keys.tolist() == [1, 2]
    assert source.left_out_count == 3
    assert f"{path}, byte 1000000" in source.left_out[0]
    assert "no record begins here" in source.left_out[2]
    assert source.report().startswith("3 records have no class\n  ")
    with pytest.raises(RecordError, match="more than 2 records have no class"):
        RecordPictures(path, 8, limit=2)


def test_pictures_that_the_index_does_not_have_are_left_out(rec):
    index = rec.with_suffix(".idx")
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join(line for line in lines if not line.startswith(("2\t", "5\t"))))
    source = RecordPictures(rec, 8)
    assert source.keys.tolist() == [1, 3, 4, 6]
    assert source.labels.tolist() == [0, 1, 2, 2]
    assert source.left_out == ["record 2 is not in the index", "record 5 is not in the index"]


def test_a_file_that_was_cut_off_tells_where(rec):
    whole = rec.read_bytes()
    place = int(read_index(rec.with_suffix(".idx"))[1][5])
    rec.write_bytes(whole[: place + 20])
    file = RecordFile(rec)
    with pytest.raises(
        RecordError, match=rf"train\.rec, byte {place + 8}: .* the file ends at byte {place + 20}"
    ):
        file.record(place)


def test_a_file_that_becomes_shorter_while_it_is_read_is_told(rec):
    file = RecordFile(rec)
    assert file.record(0).labels.tolist() == [7, 10]
    rec.write_bytes(b"")
    with pytest.raises(RecordError, match="has become shorter"):
        file.record(0)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\0" * 64, "no record begins here"),
        (WORD + struct.pack("<I", 2 << 29 | 4) + b"abcd", "a part of kind 2 where the first belongs"),
        (WORD + struct.pack("<I", 5 << 29 | 4) + b"abcd", "a part of kind 5"),
        (
            WORD + struct.pack("<I", 1 << 29 | 4) + b"abcd" + written(b"whole"),
            "kind 0 where the next belongs",
        ),
        (WORD + struct.pack("<I", (1 << 29) - 1) + bytes(100), "more than 64 MB"),
        (
            WORD + struct.pack("<I", 1 << 29) + (WORD + struct.pack("<I", 2 << 29)) * 2000,
            "more than 1000 parts",
        ),
        (written(b"short"), "5 bytes, less than its header has"),
        (written(struct.pack("<IfQQ", 2**31, 0, 0, 0)), "says it has 2147483648 labels"),
    ],
)
def test_lies_are_told_with_file_and_place(tmp_path, data, told):
    path = tmp_path / "a.rec"
    path.write_bytes(data)
    with pytest.raises(RecordError, match=r"a\.rec, byte 0|a\.rec, byte \d+") as error:
        RecordFile(path).record(0)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({0: packed([0.0, 10.0], b"")}, "identity records from 0 to 10 cannot be"),
        ({0: packed([9.0, 7.0], b"")}, "identity records from 9 to 7 cannot be"),
        ({0: packed([7.0, float("nan")], b"")}, "are no range"),
        ({0: packed([7.0, 12.0], b"")}, "tells of 5 identity records, the index has 3"),
        ({8: packed([2.0, 4.0], b"")}, "pictures 2 to 4 of identity 1"),
        ({8: packed([3.0, 9.0], b"")}, "pictures 3 to 9 of identity 1"),
        ({8: packed(3.0, b"")}, "are no range"),
    ],
)
def test_identity_records_that_cannot_be_are_told(tmp_path, changed, told):
    with pytest.raises(RecordError, match=told):
        RecordPictures(write(tmp_path / "a.rec", insightface() | changed), 8)


@pytest.mark.parametrize(
    "text",
    ["1 2\n", "1\t2\t3\n", "1\n2\t3\n4\n", "a\tb\n", "-1\t4\n", "1\t" + "9" * 30 + "\n", "1\t\n", "\n"],
)
def test_an_index_of_another_kind_is_told_with_its_line(tmp_path, text):
    (tmp_path / "a.idx").write_text("0\t0\n9\t36\n" + text)
    with pytest.raises(RecordError, match=r"a\.idx, line 3"):
        read_index(tmp_path / "a.idx")


def test_an_index_may_end_without_a_new_line_or_come_from_windows(tmp_path):
    (tmp_path / "a.idx").write_bytes(b"5\t36\r\n0\t0")
    keys, offsets = read_index(tmp_path / "a.idx")
    assert keys.tolist() == [0, 5]
    assert offsets.tolist() == [0, 36]


def test_missing_files_and_keys_that_come_twice_are_told(tmp_path, rec):
    with pytest.raises(RecordError, match=r"other\.rec: No such file"):
        RecordPictures(tmp_path / "other.rec", 8)
    rec.with_suffix(".idx").write_text("1\t0\n1\t0\n")
    with pytest.raises(RecordError, match="the key 1 comes twice"):
        RecordPictures(rec, 8)
    rec.with_suffix(".idx").unlink()
    with pytest.raises(RecordError, match=r"train\.idx: No such file"):
        RecordPictures(rec, 8)


def read_all(path):
    """Every picture, or an error that a user can be told; nothing else may happen."""
    try:
        pictures = Pictures(RecordPictures(path, 8, limit=3), limit=3)
        return [pictures[item] for item in range(len(pictures))]
    except UserError as error:
        told = str(error)
    assert str(path.parent) in told or "data set" in told or "cannot be read" in told
    return None


CLEAN = b"".join(written(data) for data in insightface().values())


@given(
    st.lists(st.tuples(st.integers(0, len(CLEAN) - 1), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 100),
)
def test_changed_bytes_and_a_cut_end_give_pictures_or_an_error(tmp_path_factory, changes, cut):
    path = write(tmp_path_factory.mktemp("rec") / "train.rec", insightface())
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place] = value
    path.write_bytes(bytes(data[: len(data) - cut]))
    for image, label in read_all(path) or []:
        assert image.shape == (3, 8, 8)
        assert 0 <= label < 6


@given(st.data())
def test_changed_heads_give_pictures_or_an_error(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("rec") / "train.rec", insightface())
    whole = bytearray(path.read_bytes())
    offsets = read_index(path.with_suffix(".idx"))[1].tolist()
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(offsets)) + 4 * data.draw(st.integers(0, 9))
        odd = st.sampled_from(
            [0, 1, 2, MAGIC, 0x7FC00000, 0x7F800000, 0xFFFFFFFF, 0x20000004, 0x5F000000, 0x4B800001]
        )
        struct.pack_into("<I", whole, place, data.draw(st.one_of(odd, st.integers(0, 2**32 - 1))))
    path.write_bytes(bytes(whole))
    read_all(path)


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_any_two_files_give_pictures_or_an_error(tmp_path_factory, rec, idx):
    path = tmp_path_factory.mktemp("rec") / "a.rec"
    path.write_bytes(rec)
    path.with_suffix(".idx").write_bytes(idx)
    read_all(path)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2000)), max_size=14))
def test_any_index_to_good_records_gives_pictures_or_an_error(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("rec") / "train.rec"
    path.write_bytes(CLEAN)
    path.with_suffix(".idx").write_text("".join(f"{key}\t{offset}\n" for key, offset in entries))
    read_all(path)
