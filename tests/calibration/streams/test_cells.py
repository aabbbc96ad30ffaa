"""Methods see a stream side by side; what is done is not done again."""

import json

import numpy as np
import pytest

from calibration.baselines.method import BLOCK
from calibration.streams import cells
from calibration.streams.cells import Contender, Run
from calibration.streams.orders import CLEAN, Stream

RUN = Run("emotion", "tune", 60, "pack")
STREAMS = [Stream(CLEAN, 0, "shuffled", 0), Stream("low_light", 3, "sorted", 1)]


class Painted:
    """Faces without a face: the item is the shade, darker where spoiled."""

    labels = np.arange(60) % 7

    def chip(self, item, shift, severity, seed, key):
        return np.full((4, 4, 3), 2 * item + 1 if severity else 2 * item, np.uint8)


class Bench:
    faces = Painted()
    truth = Painted.labels
    reference = Painted.labels.astype(float)
    alone = ()

    def answers(self, items, logits, found):
        assert len(items) == len(logits) == len(found)
        return logits.argmax(1).astype(float).tolist()


class Reader:
    """Reads the item off the shade, and is right; but not of spoiled faces."""

    def __init__(self):
        self.blocks = []
        self.notes = {"read": 1}

    def step(self, chips, tracks, times):
        assert len(chips) == len(tracks) == len(times) <= BLOCK
        self.blocks.append((chips.copy(), tracks, times))
        shade = chips[:, 0, 0, 0].astype(int)
        label = (shade // 2 % 7 + shade % 2) % 7
        return np.eye(7, dtype=np.float32)[label], np.empty((len(chips), 0), np.float32)


def quiet(*_):
    """Nobody watches."""


def measured(contenders, done=(), streams=STREAMS):
    return list(cells.measure(RUN, streams, contenders, Bench(), done, quiet))


def test_every_method_answers_every_frame_of_every_stream():
    readers = []

    def make(seed):
        readers.append(Reader())
        return readers[-1]

    found = measured({"frozen": Contender(make), "other": Contender(make)})
    assert [(c.stream, c.method) for c in found] == [(s, m) for s in STREAMS for m in ("frozen", "other")]
    clean, _, dark, _ = found
    assert len(clean.answers) == 60 + 20
    assert clean.cut == 60
    assert (clean.severities, dark.severities) == ("0" * 80, "3" * 60 + "0" * 20)
    assert clean.answers == clean.truth == clean.reference
    spoiled = [a != t for a, t in zip(dark.answers, dark.truth, strict=True)]
    assert spoiled == [True] * 60 + [False] * 20
    assert dark.notes == {"read": 1}
    tracks = np.concatenate([block[1] for block in readers[0].blocks])
    times = np.concatenate([block[2] for block in readers[0].blocks])
    assert len(np.unique(tracks)) == 80
    assert (np.diff(times) > 0).all()


def test_what_is_kept_in_a_file_is_not_measured_again(tmp_path):
    file = tmp_path / "cells.jsonl"
    assert cells.load(file) == ([], 0)
    first = measured({"frozen": Contender(lambda _: Reader())})
    for cell in first:
        cells.append(file, cell)
    with file.open("ab") as results:
        results.write(b'{"run":{"task":"emotion"')  # the machine was switched off in the middle of a line
    done, others = cells.load(file)
    assert done == first
    assert others == 1
    both = {"frozen": Contender(lambda _: pytest.fail("again")), "new": Contender(lambda _: Reader())}
    assert {cell.method for cell in measured(both, done)} == {"new"}
    changed = {"frozen": Contender(lambda _: Reader(), variant="other settings")}
    assert len(measured(changed, done)) == len(STREAMS)


def test_a_line_behind_one_that_was_cut_off_is_whole(tmp_path):
    file = tmp_path / "cells.jsonl"
    first, second = measured({"frozen": Contender(lambda _: Reader())})
    file.write_bytes(b'{"run":{"task"')
    cells.append(file, first)
    cells.append(file, second)
    assert cells.load(file) == ([first, second], 1)


def test_lines_that_are_no_results_are_passed_over_and_counted(tmp_path):
    file = tmp_path / "cells.jsonl"
    cell, _ = measured({"frozen": Contender(lambda _: Reader())})
    cells.append(file, cell)
    line = json.loads(file.read_bytes())
    older = {name: value for name, value in line.items() if name != "cut"}
    short = line | {"truth": line["truth"][:-1]}
    beyond = line | {"cut": 81}
    with file.open("a") as results:
        results.writelines(json.dumps(other) + "\n" for other in (older, short, beyond, [1, 2]))
    with file.open("ab") as results:
        results.write(b"\xff\xfe\x00\n")
    assert cells.load(file) == ([cell], 5)


def test_a_file_of_results_that_is_a_folder_is_told(tmp_path):
    file = tmp_path / "cells.jsonl"
    file.mkdir()
    with pytest.raises(cells.ResultsError, match="Is a directory; name another folder"):
        cells.load(file)
    cell, _ = measured({"frozen": Contender(lambda _: Reader())})
    with pytest.raises(cells.ResultsError, match="Is a directory; what was finished before is in it"):
        cells.append(file, cell)
