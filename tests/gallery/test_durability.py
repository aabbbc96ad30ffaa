"""Cars lose power: at whatever moment, a person is there as a whole or not at all, and what was promised holds."""

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from agent.gallery.store import Gallery

FORK = multiprocessing.get_context("fork")
PACK = "a" * 64
LIVES = 200
SAMPLES = 4


def churn(path: Path, first: int, diary: int, samples) -> None:
    """Enrols people and deletes most of them again, and says before and after what it does."""
    with Gallery.open(path) as gallery:
        os.write(diary, b"begun \n")
        for number in range(first, first + 1000):
            gallery.enrol(f"Passenger {number}", samples, PACK, 50)
            os.write(diary, b"enrolled %d\n" % number)
            if number % 4:
                os.write(diary, b"deleting %d\n" % number)
                gallery.delete(f"Passenger {number}")
                os.write(diary, b"deleted %d\n" % number)


def test_a_kill_at_any_of_200_moments_leaves_whole_people_and_keeps_what_was_promised(path, taken):
    same = taken(1, SAMPLES)
    Gallery.open(path).close()
    chance = random.Random(3)  # noqa: S311 - the same moments each time
    kept: set[str] = set()
    deaths = {"begun": 0, "enrolled": 0, "deleting": 0, "deleted": 0}
    for life in range(LIVES):
        reader, writer = os.pipe()
        process = FORK.Process(target=churn, args=[path, life * 1000, writer, same])
        process.start()
        os.close(writer)
        with os.fdopen(reader, "rb") as diary:
            # A busy machine is slower in everything, so the moment is counted in what was done, and a little more.
            lines = [diary.readline() for _ in range(chance.randint(1, 6))]
            time.sleep(chance.uniform(0, 0.01))
            os.kill(process.pid, signal.SIGKILL)
            lines = [line.decode() for line in lines + diary.readlines()]
        process.join()

        with closing(sqlite3.connect(path)) as raw:
            assert raw.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        with Gallery.open(path) as gallery:
            people = {person.name: person.samples for person in gallery.people()}
            assert set(people.values()) <= {SAMPLES}
            assert set(gallery.snapshot(PACK).names) == set(people)
        promised = {f"Passenger {line.split()[1]}" for line in lines if line.startswith("enrolled")}
        begun = {f"Passenger {line.split()[1]}" for line in lines if line.startswith("deleting")}
        gone = {f"Passenger {line.split()[1]}" for line in lines if line.startswith("deleted")}
        assert (kept | promised - begun) <= set(people)
        assert not gone & set(people)
        kept = set(people)
        deaths[lines[-1].split()[0]] += 1
    assert min(deaths["begun"] + deaths["deleted"], deaths["deleting"]) > 20, (
        "it dies while it enrols and deletes"
    )

    with closing(sqlite3.connect(path)) as raw:
        seals = [seal for (seal,) in raw.execute("SELECT sealed FROM samples")]
    with Gallery.open(path) as gallery:
        for name in kept:
            gallery.delete(name)
    left = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"Passenger" not in left
    assert not any(seal[at : at + 16] in left for seal in seals for at in range(0, len(seal) - 15, 16))


def test_an_enrolment_that_dies_at_any_step_leaves_the_person_or_nothing(path, taken, dying):
    same = taken(1, 1)
    with Gallery.open(path) as gallery:
        gallery.enrol("Ada", taken(2, 1), PACK, 50)
    moment, there = 1, 0
    while dying(lambda gallery: gallery.enrol("Bob", same, PACK, 50), moment):
        with Gallery.open(path) as gallery:
            names = gallery.snapshot(PACK).names
            assert names in {("Ada",), ("Ada", "Bob")}
            assert [note.action for note in gallery.audit()].count("enrol") >= len(names)
            if "Bob" in names:
                there += 1
                gallery.delete("Bob")
        moment += 1
    assert moment > 10
    with Gallery.open(path) as gallery:
        gallery.delete("Bob")
        assert [note.action for note in gallery.audit()] == ["enrol"] + ["enrol", "delete"] * (there + 1)
