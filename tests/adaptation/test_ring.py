"""The ring of chips: what is read is what was written, the writer never waits, and nothing is left behind."""

import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.adaptation.ring import RingReader, RingWriter, Shape
from agent.adaptation.types import Sample

SHAPE = Shape(side=8, labels=3, slots=4)


def sample(number: int, side: int = 8) -> Sample:
    """A sample of which every byte tells its number."""
    chip = np.full((side, side, 3), number % 251, np.uint8)
    return Sample(chip, (0.25, 0.5, 0.25), number, number / 10)


@pytest.fixture
def ring():
    writer = RingWriter(SHAPE)
    reader = RingReader(writer.file, SHAPE)
    yield writer, reader
    reader.close()
    writer.close()


def test_what_is_read_is_what_was_written(ring):
    writer, reader = ring
    assert reader.take() is None
    rng = np.random.default_rng(0)
    chip = rng.integers(0, 256, (8, 8, 3), np.uint8)
    writer.put(Sample(chip, (0.125, 0.5, 0.375), -7, 12.5), 3)
    found, epoch = reader.take()
    assert np.array_equal(found.chip, chip)
    assert (found.probabilities, found.track, found.at, epoch) == ((0.125, 0.5, 0.375), -7, 12.5, 3)
    assert reader.take() is None


@given(st.lists(st.one_of(st.just("take"), st.integers(1, 9)), max_size=60))
def test_it_is_a_queue_of_the_newest_whatever_the_order_of_writing_and_reading(steps):
    writer = RingWriter(SHAPE)
    reader = RingReader(writer.file, SHAPE)
    expected: deque[int] = deque(maxlen=SHAPE.slots)
    try:
        for step in steps:
            if step == "take":
                found = reader.take()
                assert (found[0].track if found else None) == (expected.popleft() if expected else None)
                continue
            for _ in range(step):
                expected.append(writer.written)
                writer.put(sample(writer.written), 0)
        assert reader.lost <= writer.written
    finally:
        reader.close()
        writer.close()


def test_what_was_written_over_is_counted(ring):
    writer, reader = ring
    for number in range(10):
        writer.put(sample(number), 0)
    assert [reader.take()[0].track for _ in range(4)] == [6, 7, 8, 9]
    assert reader.lost == 6


@pytest.mark.parametrize("where", [0, 8, 24, 60, 150])
def test_a_slot_with_one_wrong_byte_is_left_out(ring, where):
    writer, reader = ring
    writer.put(sample(1), 0)
    writer.put(sample(2), 0)
    writer._memory[64 + where] ^= 0x40
    assert reader.take()[0].track == 2
    assert reader.lost == 1


@pytest.mark.parametrize("wrong", [sample(1, side=9), Sample(sample(1).chip, (1.0,), 1, 0.0)])
def test_a_sample_of_another_shape_is_refused(ring, wrong):
    with pytest.raises(ValueError, match="does not fit"):
        ring[0].put(wrong, 0)


def test_memory_of_another_size_is_refused(ring):
    with pytest.raises(ValueError, match="bytes"):
        RingReader(ring[0].file, Shape(side=8, labels=3, slots=5))


def test_nobody_can_take_the_memory_from_under_the_other(ring):
    with pytest.raises(PermissionError):
        os.ftruncate(ring[0].file, 0)


def test_it_has_no_name_and_its_memory_does_not_grow():
    files = psutil.Process().num_fds()
    writer = RingWriter(SHAPE)
    for number in range(100):
        writer.put(sample(number), 0)
    assert os.fstat(writer.file).st_size == SHAPE.ring_bytes
    assert str(Path(f"/proc/self/fd/{writer.file}").readlink()) == "/memfd:cabinsense-chips (deleted)"
    writer.close()
    assert psutil.Process().num_fds() == files


READ = """
import sys
from agent.adaptation.ring import RingReader, Shape
reader = RingReader(int(sys.argv[1]), Shape(side=150, labels=7, slots=3))
print("reading", flush=True)
newest = -1
while newest < 2000:
    found = reader.take()
    if found is None:
        continue
    sample, epoch = found
    assert sample.track > newest, (sample.track, newest)
    newest = sample.track
    assert (sample.chip == newest % 251).all(), "torn"
    assert sample.at == newest / 10
print(newest)
"""


def test_no_chip_is_torn_however_fast_another_process_writes():
    """Three slots, and a writer that goes round them as fast as it can."""
    writer = RingWriter(Shape(side=150, labels=7, slots=3))
    with subprocess.Popen(
        [sys.executable, "-c", READ, str(writer.file)],
        pass_fds=(writer.file,),
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as reader:
        assert reader.stdout.readline() == "reading\n"
        number, end = 0, time.monotonic() + 60
        while reader.poll() is None and time.monotonic() < end:
            chip = np.full((150, 150, 3), number % 251, np.uint8)
            writer.put(Sample(chip, (1 / 7,) * 7, number, number / 10), 0)
            number += 1
        assert int(reader.stdout.read()) >= 2000
    assert reader.returncode == 0
    writer.close()
