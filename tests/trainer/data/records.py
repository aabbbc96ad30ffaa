"""RecordIO files as MXNet's tools write them, for tests that read them."""

import struct

import numpy as np

from trainer.data.recordio import MAGIC

WORD = struct.pack("<I", MAGIC)


def packed(labels, content: bytes, key: int = 0) -> bytes:
    """A record's bytes: one label stands in the header, several behind it."""
    if np.isscalar(labels):
        return struct.pack("<IfQQ", 0, labels, key, 0) + content
    return struct.pack("<IfQQ", len(labels), 0.0, key, 0) + np.array(labels, "<f4").tobytes() + content


def written(data: bytes) -> bytes:
    """A record as dmlc-core's writer makes it: cut wherever the magic number stands at a multiple of four."""
    parts, start = [], 0
    for at in range(0, len(data) // 4 * 4, 4):
        if data[at : at + 4] == WORD:
            parts.append(data[start:at])
            start = at + 4
    parts.append(data[start:])
    out = b""
    for number, part in enumerate(parts):
        kind = 0 if len(parts) == 1 else 1 if number == 0 else 3 if number == len(parts) - 1 else 2
        out += WORD + struct.pack("<I", kind << 29 | len(part)) + part + bytes(-len(part) % 4)
    return out


def write(path, records: dict[int, bytes]):
    """``path`` with these records, and its index."""
    offsets, whole = {}, b""
    for key, data in records.items():
        offsets[key] = len(whole)
        whole += written(data)
    path.write_bytes(whole)
    path.with_suffix(".idx").write_text("".join(f"{key}\t{offset}\n" for key, offset in offsets.items()))
    return path


def insightface_records(people: list[list[bytes]]) -> dict[int, bytes]:
    """A set as InsightFace packs it, by key: record 0, each person's pictures, and their identity records."""
    count = sum(map(len, people))
    records = {0: packed([float(count + 1), float(count + 1 + len(people))], b"")}
    spans = []
    for number, pictures in enumerate(people):
        spans.append([float(len(records)), float(len(records) + len(pictures))])
        for picture in pictures:
            records[len(records)] = packed(float(number), picture, len(records))
    return records | {count + 1 + number: packed(span, b"") for number, span in enumerate(spans)}
