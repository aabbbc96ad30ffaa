"""The control socket as its users meet it: it answers, records, refuses with a reason, and survives nonsense."""

import dataclasses
import json
import multiprocessing
import os
import random
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from agent.config import Button, Camera, Config, Control, Curve, Enrolment
from agent.config import Gallery as GalleryConfig
from agent.control import (
    MAX_REQUEST,
    Cancel,
    ControlError,
    DeletePerson,
    Done,
    GetStatus,
    ListPeople,
    People,
    Record,
    Recorded,
    RejectPerson,
    ReloadGallery,
    RenamePerson,
    Status,
    daemon_listens,
    request,
)
from agent.enrolment import SILENCE_S
from agent.events import EnrollmentEvent, Event, HealthEvent
from agent.gallery.store import Gallery
from agent.gallery.types import GalleryError, Sample, Snapshot
from agent.live import Live
from agent.mailbox import Mailbox
from agent.perception.types import Detection, Face, Match, Pose, Quality, Reading, Stamp
from agent.sockets import EndpointError
from agent.stages.control import ControlStage

PACK = "a" * 64
THRESHOLD = 0.94
POSED = {
    "straight": Pose(0.0, 0.0, 0.0),
    "left": Pose(20.0, 0.0, 0.0),
    "right": Pose(-20.0, 0.0, 0.0),
    "up": Pose(0.0, 8.0, 0.0),
}
GOOD = Quality(40.0, 100.0, 120.0, 50.0, POSED["straight"])
BLURRED = Quality(40.0, 1.0, 120.0, 50.0, Pose(0.0, 0.0, 0.0), ("blurred",))
PLACE = Detection((0.0, 0.0, 100.0, 100.0), 0.9, np.zeros((5, 2), np.float32))


def vector(seed: int) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=128).astype(np.float32)
    return made / np.linalg.norm(made)


def face(quality: Quality = GOOD, track: int = 1, seed: int = 1) -> Face:
    return Face(track, PLACE, False, quality, "seen", None, None, vector(seed))


def looking(seen: Face, index: int, pose: str) -> Face:
    """The face in a frame of its own: each look differs a little (cosines of 0.96), and goes where it is asked to."""
    if seen.state != "seen":
        return seen
    look = vector(1000 + index)
    embedding = seen.embedding + 0.2 * (look - (look @ seen.embedding) * seen.embedding)
    quality = dataclasses.replace(seen.quality, pose=POSED.get(pose, POSED["straight"]))
    return dataclasses.replace(
        seen, embedding=(embedding / np.linalg.norm(embedding)).astype(np.float32), quality=quality
    )


@dataclass
class Running:
    """A control stage with all that surrounds it in the daemon."""

    config: Config
    live: Live
    outbox: Mailbox[Event]
    stage: ControlStage
    faces: tuple[Face, ...] = (face(),)
    delivers: bool = True
    seen: list[Event] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return self.config.control_endpoint

    def ask(self, what, expect=Done, timeout_s=10.0):
        return request(self.endpoint, what, expect, timeout_s, curve=self.config.curve)

    def events(self) -> list[Event]:
        while (event := self.outbox.take(0)) is not None:
            self.seen.append(event)
        return self.seen

    def states(self) -> list[str]:
        return [event.state for event in self.events()]


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def configured(folder: Path, endpoint: str = "", per_minute: int = 600) -> Config:
    return Config(
        cameras=(Camera(name="cabin", source="0"), Camera(name="rear", source="1")),
        gallery=GalleryConfig(path=str(folder / "gallery.db")),
        control=Control(endpoint=endpoint or f"ipc://{folder}/run/c"),
        curve=Curve(insecure=True),  # keys have tests of their own, in test_network.py
        enrolment=Enrolment(per_minute=per_minute),
    )


def started(config: Config) -> Running:
    live, outbox = Live(Snapshot()), Mailbox[Event](1000)
    running = Running(config, live, outbox, ControlStage(config, PACK, live, outbox, THRESHOLD))
    running.stage.start()
    wait_until(lambda: daemon_listens(config.control_endpoint) or not running.stage.alive)
    return running


@pytest.fixture
def running(tmp_path) -> Iterator[Running]:
    """The stage; in place of perception a thread that delivers thirty readings a second while they are wanted.

    They show somebody who does as the lamp says.
    """
    made = started(configured(tmp_path))
    ended = threading.Event()

    def perceive() -> None:
        index = 0
        while not ended.wait(1 / 30):
            index += 1
            if made.live.recording.is_set() and made.delivers:
                sign = made.live.sign
                faces = tuple(looking(each, index, sign.pose if sign else "") for each in made.faces)
                made.live.readings.put(Reading(Stamp("cabin", index, time.monotonic(), time.time()), faces))

    camera = threading.Thread(target=perceive)
    camera.start()
    assert made.ask(GetStatus(), Status).state == "idle"  # it listens a moment before the gallery is open
    yield made
    ended.set()
    camera.join()
    made.stage.stop()
    assert made.stage.join(5)
    assert made.stage.failure is None


@dataclass
class Later:
    """A request that is asked in a thread, and what came of it."""

    running: Running
    what: object
    expect: type = Recorded

    def __post_init__(self) -> None:
        self.result: object = None
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self.result = self.running.ask(self.what, self.expect)
        except ControlError as error:
            self.result = error

    def wait(self) -> object:
        self._thread.join(15)
        return self.result


def recording(running: Running, **more: object) -> Later:
    later = Later(running, Record(**({"name": "Ada", "seconds": 10.0} | more)))
    wait_until(running.live.recording.is_set)
    return later


# Recording


def test_who_presses_record_is_guided_enrolled_and_recognised_from_then_on(running):
    done = running.ask(Record(name=" Ada "), Recorded)
    assert done.name == "Ada"
    assert done.taken == done.samples == 12
    assert done.poses == {"straight": 3, "left": 3, "right": 3, "up": 3}
    assert done.missing == ()
    assert running.live.snapshot.names == ("Ada",)
    assert running.live.snapshot.templates[0] @ vector(1) > 0.95
    assert not running.live.recording.is_set()
    wait_until(lambda: "done" in running.states())
    events = running.events()
    assert [event.state for event in events if event.state != "hint"] == ["started", *["sample"] * 12, "done"]
    prompts = ["look_straight", "turn_left", "turn_right", "look_up"]
    assert [event.hint for event in events if event.hint not in (None, "good")] == prompts
    samples = [event for event in events if event.state == "sample"]
    assert [event.samples for event in samples] == [*range(1, 13)]
    assert [event.pose for event in samples] == [pose for pose in POSED for _ in range(3)]
    assert all(event.frame >= 0 and event.utc.endswith("Z") for event in samples)
    assert events[-1].poses == done.poses
    assert {(event.person, event.camera, event.wanted) for event in events} == {("Ada", "cabin", 12)}


def test_a_hint_is_told_with_words_for_it(running):
    running.faces = (face(BLURRED),)
    later = recording(running)
    wait_until(lambda: "hint" in running.states())
    assert (running.seen[-1].hint, "hold still" in running.seen[-1].advice) == ("blurred", True)
    running.ask(Cancel())
    assert later.wait().code == "cancelled"


def test_somebody_without_a_name_becomes_the_next_driver(running):
    assert running.ask(Record(name="", seconds=1), Recorded).name == "Driver 1"
    running.faces = (face(seed=2),)
    assert running.ask(Record(name="", seconds=1), Recorded).name == "Driver 2"
    running.ask(DeletePerson(name="Driver 1"))
    with pytest.raises(ControlError, match="must not be empty"):
        running.ask(Record(name="", seconds=1, add=True), Recorded)


def test_more_samples_can_be_added_to_a_known_person(running):
    first = running.ask(Record(name="Ada", seconds=1), Recorded)
    with pytest.raises(ControlError, match="Ada is enrolled already; --add"):
        running.ask(Record(name="Ada", seconds=1), Recorded)
    more = running.ask(Record(name="Ada", seconds=1, add=True), Recorded)
    assert more.samples == first.samples + more.taken


def test_nobody_gets_a_second_name_by_mistake(running):
    running.ask(Record(name="Ada", seconds=1), Recorded)
    with pytest.raises(ControlError, match="this looks like Ada, who is enrolled already; --add") as told:
        running.ask(Record(name="Bob"), Recorded)
    assert told.value.code == "already_enrolled"
    wait_until(lambda: "refused" in running.states())
    assert (running.seen[-1].reason, running.seen[-1].detail) == ("already_enrolled", "Ada")
    assert running.seen[-1].samples == 3  # it is told as soon as it is known, not after all poses
    assert running.ask(Record(name="Bob", seconds=1, anyway=True), Recorded).name == "Bob"


def test_nobody_gets_the_samples_of_somebody_else_by_mistake(running):
    running.ask(Record(name="Ada", seconds=1), Recorded)
    running.faces = (face(seed=2),)
    with pytest.raises(ControlError, match="this does not look like Ada; --anyway") as told:
        running.ask(Record(name="Ada", seconds=5, add=True), Recorded)
    assert told.value.code == "another_person"
    assert running.ask(Record(name="Ada", seconds=1, add=True, anyway=True), Recorded).taken >= 2


@pytest.mark.parametrize(
    ("faces", "code", "detail", "word"),
    [
        ((), "no_face", None, "no face"),
        ((face(), face()), "several_faces", None, "somebody else"),
        ((face(BLURRED),), "poor_quality", "blurred", "hold still"),
    ],
)
def test_a_refusal_says_why_and_enrols_nobody(running, faces, code, detail, word):
    running.faces = faces
    with pytest.raises(ControlError, match=word) as told:
        running.ask(Record(name="Ada", seconds=1), Recorded)
    assert told.value.code == code
    wait_until(lambda: "refused" in running.states())
    assert (running.seen[-1].reason, running.seen[-1].detail) == (code, detail)
    assert running.ask(ListPeople(), People).people == ()


@pytest.mark.parametrize(
    ("other", "code"), [(face(track=2, seed=2), "person_changed"), (face(seed=2), "several_people")]
)
def test_a_second_person_during_a_recording_is_never_stored_under_the_first_ones_name(running, other, code):
    later = recording(running, seconds=1.0)
    wait_until(lambda: "sample" in running.states())
    running.faces = (other,)
    assert later.wait().code == code
    wait_until(lambda: "refused" in running.states())
    assert running.seen[-1].reason == code
    assert running.ask(ListPeople(), People).people == ()


def test_a_camera_without_pictures_is_told(running):
    with pytest.raises(ControlError, match="delivers no pictures") as told:
        running.ask(Record(name="Ada", seconds=1, camera="rear"), Recorded)
    assert told.value.code == "no_frames"


def test_an_unknown_camera_and_an_unusable_name_are_refused_at_once(running):
    with pytest.raises(ControlError, match="the cameras are: cabin, rear") as told:
        running.ask(Record(name="Ada", camera="boot"), Recorded)
    assert told.value.code == "no_camera"
    for name in (" ", "A\0", "x" * 100):
        with pytest.raises(ControlError, match="name"):
            running.ask(Record(name=name), Recorded)
    assert running.events() == []


def test_while_recording_it_answers_others_and_takes_no_second_recording(running):
    first = recording(running)
    started_at = time.monotonic()
    assert running.ask(GetStatus(), Status).state == "recording"
    assert running.ask(ListPeople(), People).people == ()
    with pytest.raises(ControlError, match="Ada is being recorded") as told:
        running.ask(Record(name="Bob"), Recorded)
    assert told.value.code == "busy"
    assert time.monotonic() - started_at < 2
    running.ask(Cancel())
    assert first.wait().code == "cancelled"


def test_a_cancelled_recording_leaves_nothing(running):
    later = recording(running)
    wait_until(lambda: "sample" in running.states())
    running.ask(Cancel())
    assert later.wait().code == "cancelled"
    assert not running.live.recording.is_set()
    wait_until(lambda: "refused" in running.states())
    assert running.seen[-1].reason == "cancelled"
    assert running.ask(ListPeople(), People).people == ()
    running.ask(Cancel())  # there is nothing to cancel, and that is fine


def test_it_stops_within_a_second_while_recording_and_half_enrols_nobody(tmp_path, running):
    later = recording(running)
    wait_until(lambda: "sample" in running.states())
    began = time.monotonic()
    running.stage.stop()
    assert running.stage.join(1.0)
    assert time.monotonic() - began < 1.0
    told = later.wait()
    assert (told.code, "record again" in str(told)) == ("stopping", True)
    assert running.states()[-1] == "refused"
    assert not running.live.recording.is_set()
    with Gallery.open(tmp_path / "gallery.db", readonly=True) as gallery:
        assert gallery.people() == []


def test_a_camera_that_is_lost_ends_the_recording_in_bounded_time(running):
    later = recording(running)
    wait_until(lambda: "sample" in running.states())
    running.delivers = False
    began = time.monotonic()
    assert later.wait().code == "camera_lost"
    assert time.monotonic() - began < SILENCE_S + 3
    assert running.ask(ListPeople(), People).people == ()


def test_recordings_are_limited_and_the_wait_is_told(tmp_path):
    made = started(configured(tmp_path, per_minute=2))
    for _ in range(2):
        later = recording(made)
        made.ask(Cancel())
        assert later.wait().code == "cancelled"
    with pytest.raises(ControlError, match=r"too many recordings; try again in [1-9]\d* s") as told:
        made.ask(Record(name="Ada"), Recorded)
    assert told.value.code == "too_many"
    assert made.ask(GetStatus(), Status).state == "idle"
    made.live.presses.put("short")  # who can press the button sits in the car
    wait_until(made.live.recording.is_set)
    made.stage.stop()
    assert made.stage.join(5)


# The button


def test_a_press_of_the_button_records_the_next_driver(running):
    running.live.presses.put("short")
    wait_until(lambda: "done" in running.states())
    assert {event.person for event in running.seen} == {"Driver 1"}
    assert running.live.sign.state == "done"
    assert running.ask(ListPeople(), People).people[0].samples == 12


def test_a_press_while_recording_changes_nothing_and_a_long_one_cancels(running):
    running.live.presses.put("short")
    wait_until(lambda: "sample" in running.states())
    running.live.presses.put("short")
    taken = running.states().count("sample")
    wait_until(lambda: running.states().count("sample") > taken)
    assert running.states().count("started") == 1
    running.live.presses.put("long")
    wait_until(lambda: "refused" in running.states())
    assert running.seen[-1].reason == "cancelled"
    assert running.live.sign.state == "refused"
    running.live.presses.put("long")  # there is nothing to cancel, and that is fine
    assert running.ask(ListPeople(), People).people == ()


def test_the_lamp_follows_a_recording_from_the_socket_too(running):
    later = recording(running)
    wait_until(lambda: running.live.sign.pose == "up")
    assert running.live.sign.state == "recording"
    later.wait()
    assert running.live.sign.state == "done"


def test_a_press_that_can_record_nobody_is_shown_and_told(tmp_path, caplog):
    config = msgspec.structs.replace(configured(tmp_path), button=Button(line="x", camera="boot"))
    made = started(config)
    made.live.presses.put("short")
    wait_until(lambda: "refused" in made.states())
    assert (made.seen[-1].reason, "cabin, rear" in made.seen[-1].advice) == ("no_camera", True)
    assert caplog.messages == ["the record button was pressed, but nobody can be recorded: no_camera"]
    assert made.live.sign.state == "refused"
    made.stage.stop()
    assert made.stage.join(5)


# A client that follows the recording


def test_a_client_may_follow_the_recording(running):
    seen: list[EnrollmentEvent] = []
    request(running.endpoint, Record(name="Ada", progress=True), Recorded, 20.0, seen.append)
    wait_until(lambda: "done" in running.states())
    assert seen == running.events()[:-1]


def _follow(endpoint: str) -> None:
    request(endpoint, Record(name="Ada", seconds=60.0, progress=True), Recorded, 70.0)


def test_a_client_that_was_killed_ends_the_recording(running):
    running.faces = (face(BLURRED),)  # nothing would end it otherwise
    client = multiprocessing.get_context("fork").Process(target=_follow, args=[running.endpoint])
    client.start()
    wait_until(lambda: "hint" in running.states())
    client.kill()
    wait_until(lambda: "refused" in running.states())
    assert running.seen[-1].reason == "client_gone"
    assert running.ask(GetStatus(), Status).state == "idle"


def test_readings_left_over_from_an_earlier_recording_are_not_used(running):
    old = Reading(Stamp("cabin", 0, time.monotonic() + 3600, 0.0), (face(),))
    running.faces = ()
    running.live.readings.put(old)
    with pytest.raises(ControlError) as told:
        running.ask(Record(name="Ada", seconds=1), Recorded)
    assert told.value.code == "no_face"


def test_a_gallery_that_cannot_be_written_refuses_and_the_stage_lives_on(tmp_path, running):
    holder = sqlite3.connect(tmp_path / "gallery.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(ControlError, match="in use by another process") as told:
        running.ask(Record(name="Ada", seconds=1), Recorded)
    assert told.value.code == "gallery"
    holder.close()
    wait_until(lambda: "refused" in running.states())
    assert "in use" in running.seen[-1].detail
    assert running.ask(Record(name="Ada", seconds=1), Recorded).samples >= 2


def test_who_is_enrolled_is_told_so_even_if_the_gallery_cannot_be_shown(tmp_path, running, caplog):
    running.ask(Record(name="Ada", seconds=1), Recorded)
    with sqlite3.connect(tmp_path / "gallery.db") as other:
        other.execute(
            "UPDATE samples SET sealed = CAST(substr(sealed, 1, 20) || x'00000000' || substr(sealed, 25) AS BLOB)"
        )
    running.events()
    running.seen.clear()
    assert running.ask(Record(name="Bob", seconds=1, anyway=True), Recorded).samples >= 2
    wait_until(lambda: "done" in running.states())
    assert "refused" not in running.states()
    assert [person.name for person in running.ask(ListPeople(), People).people] == ["Ada", "Bob"]
    assert "does not open" in caplog.text
    assert "Ada" not in caplog.text


def test_samples_that_do_not_fit_the_stored_ones_are_refused_and_the_stage_lives_on(tmp_path, running):
    short = np.eye(1, 64, dtype=np.float32)[0]
    with Gallery.open(tmp_path / "gallery.db") as gallery:
        gallery.enrol("Bob", [Sample(short, GOOD)], PACK, 50)
    with pytest.raises(ControlError, match="embeddings of 64 numbers") as told:
        running.ask(Record(name="Ada", seconds=1), Recorded)
    assert told.value.code == "gallery"
    assert running.ask(GetStatus(), Status).state == "idle"


# The gallery


def test_a_deleted_person_is_forgotten_by_the_running_daemon(running):
    running.ask(Record(name="Ada", seconds=1), Recorded)
    running.ask(DeletePerson(name="Ada"))
    assert running.live.snapshot.names == ()
    assert running.ask(ListPeople(), People).people == ()
    with pytest.raises(ControlError, match="nobody called Ada"):
        running.ask(DeletePerson(name="Ada"))


def test_a_deleted_person_is_forgotten_though_somebody_elses_sample_is_damaged(tmp_path, running):
    with Gallery.open(tmp_path / "gallery.db") as gallery:
        for seed, name in enumerate(("Ada", "Bob")):
            gallery.enrol(name, [Sample(vector(seed), GOOD)], PACK, 50)
    running.ask(ReloadGallery())
    with sqlite3.connect(tmp_path / "gallery.db") as other:
        other.execute(
            "UPDATE samples SET sealed = CAST(substr(sealed, 1, 20) || x'00000000' || substr(sealed, 25) AS BLOB) "
            "WHERE person_id = (SELECT id FROM people WHERE name = 'Bob')"
        )
    running.ask(DeletePerson(name="Ada"))
    assert running.live.snapshot.names == ()
    assert not running.live.gallery_readable
    with pytest.raises(ControlError, match="of Bob does not open"):
        running.ask(ReloadGallery())
    running.ask(DeletePerson(name="Bob"))
    assert running.live.gallery_readable


def test_a_backup_out_of_reach_is_told_to_whoever_deletes(tmp_path, running):
    running.ask(Record(name="Ada", seconds=1), Recorded)
    with Gallery.open(tmp_path / "gallery.db") as gallery:
        gallery.export(tmp_path / "backup", "correct horse battery")
    (tmp_path / "backup").rename(tmp_path / "away")
    (note,) = running.ask(DeletePerson(name="Ada")).notes
    assert str(tmp_path / "backup") in note


def test_a_person_gets_another_name_by_which_they_are_recognised_at_once(running):
    running.ask(Record(name="Driver 1", seconds=1), Recorded)
    running.ask(RenamePerson(name="Driver 1", to=" Ada "))
    assert running.live.snapshot.names == ("Ada",)
    for name, to, word in (
        ("Eve", "Zoe", "nobody called Eve"),
        ("Ada", "", "empty"),
        ("Ada", "x" * 10_000, "too long"),
    ):
        with pytest.raises(ControlError, match=word) as told:
            running.ask(RenamePerson(name=name, to=to))
        assert told.value.code == "gallery"
        assert len(str(told.value)) < 300
    assert running.live.snapshot.names == ("Ada",)


def test_a_key_that_another_process_has_changed_is_found(tmp_path, running):
    running.ask(Record(name="Ada", seconds=1), Recorded)
    with Gallery.open(tmp_path / "gallery.db") as gallery:
        gallery.rotate_key()
    running.ask(ReloadGallery())
    running.faces = (face(seed=2),)
    running.ask(Record(name="Bob", seconds=1), Recorded)
    assert running.live.snapshot.names == ("Ada", "Bob")


# Not this person


def taken_for(name: str, seed: int = 5, quality: Quality = GOOD, track: int = 1) -> Face:
    return Face(track, PLACE, False, quality, "confirmed", Match(name, 0.9, 0.8), None, vector(seed))


@pytest.fixture
def enrolled(running) -> Running:
    running.ask(Record(name="Ada", seconds=1), Recorded)
    return running


def test_a_face_that_is_wrongly_taken_for_somebody_is_remembered_as_not_theirs(enrolled):
    enrolled.faces = (face(seed=3, track=2), taken_for("Ada"))
    enrolled.ask(RejectPerson(name=" Ada "))
    np.testing.assert_allclose(enrolled.live.snapshot.anchors, [vector(5)])
    assert enrolled.live.snapshot.anchor_owners.tolist() == [0]
    assert not enrolled.live.recording.is_set()
    enrolled.ask(RejectPerson(name="Ada", camera="cabin"))
    assert len(enrolled.live.snapshot.anchors) == 2


@pytest.mark.parametrize(
    ("faces", "camera", "code", "word"),
    [
        ((), "", "not_seen", "nobody before a camera is taken for Ada"),
        ((face(),), "", "not_seen", "nobody before a camera"),
        ((taken_for("Bob"),), "", "not_seen", "nobody before a camera"),
        ((taken_for("Ada", quality=BLURRED),), "", "not_seen", "nobody before a camera"),
        ((taken_for("Ada"),), "rear", "not_seen", "nobody before a camera"),
        ((taken_for("Ada"), taken_for("Ada", track=2)), "", "several_faces", "two faces are taken for Ada"),
    ],
    ids=["nobody", "undecided", "another", "blurred", "other-camera", "two"],
)
def test_a_face_that_is_not_clearly_meant_is_not_remembered(enrolled, faces, camera, code, word):
    enrolled.faces = faces
    with pytest.raises(ControlError, match=word) as told:
        enrolled.ask(RejectPerson(name="Ada", camera=camera))
    assert told.value.code == code
    assert not len(enrolled.live.snapshot.anchors)
    assert not enrolled.live.recording.is_set()


def test_nobody_can_be_rejected_who_is_not_enrolled_or_while_somebody_records(enrolled):
    with pytest.raises(ControlError, match="nobody called Eve"):
        enrolled.ask(RejectPerson(name="Eve"))
    with pytest.raises(ControlError, match="the cameras are: cabin, rear"):
        enrolled.ask(RejectPerson(name="Ada", camera="boot"))
    first = recording(enrolled, name="Bob")
    with pytest.raises(ControlError, match="Bob is being recorded") as told:
        enrolled.ask(RejectPerson(name="Ada"))
    assert told.value.code == "busy"
    enrolled.ask(Cancel())
    assert first.wait().code == "cancelled"
    enrolled.faces = ()
    second = Later(enrolled, RejectPerson(name="Ada"), Done)
    wait_until(enrolled.live.recording.is_set)
    with pytest.raises(ControlError, match="a face is being marked") as told:
        enrolled.ask(Record(name="Bob"), Recorded)
    assert told.value.code == "busy"
    assert second.wait().code == "not_seen"


def test_it_stops_at_once_while_it_looks_for_a_face(enrolled):
    enrolled.faces = ()
    later = Later(enrolled, RejectPerson(name="Ada"), Done)
    wait_until(enrolled.live.recording.is_set)
    enrolled.stage.stop()
    assert later.wait().code == "stopping"


def test_what_another_process_has_enrolled_is_known_after_a_reload(tmp_path, running):
    with Gallery.open(tmp_path / "gallery.db") as gallery:
        gallery.enrol("Bob", [Sample(vector(2), GOOD)], PACK, 50)
    assert running.live.snapshot.names == ()
    running.ask(ReloadGallery())
    assert running.live.snapshot.names == ("Bob",)
    (bob,) = running.ask(ListPeople(), People).people
    assert (bob.name, bob.samples, bob.packs) == ("Bob", 1, (PACK,))


def test_status_tells_the_newest_health(running):
    status = running.ask(GetStatus(), Status)
    assert (status.pack, status.state, status.health) == (PACK, "idle", None)
    running.live.health = HealthEvent(
        monotonic=1.0, utc="2025-01-01T00:00:00.000000Z", uptime=1.0, pack=PACK, people=0, cameras=(), fps=30.0,
        frame_ms={}, stages={}, rss_mb=1.0, cpu_percent=1.0, dropped=0, problems=("a lens cap",),
    )  # fmt: skip
    assert running.ask(GetStatus(), Status).health.problems == ("a lens cap",)


# Nonsense


@dataclass
class Raw:
    """A client that sends whatever it likes."""

    running: Running
    kind: int = zmq.DEALER

    def __enter__(self) -> "Raw":
        self.context = zmq.Context()
        self.socket = self.context.socket(self.kind)
        self.socket.linger = 0
        self.socket.connect(self.running.endpoint)
        return self

    def __exit__(self, *_: object) -> None:
        self.context.destroy(linger=0)

    def ask(self, *frames: bytes) -> dict | None:
        self.socket.send_multipart(frames)
        if not self.socket.poll(2000):
            return None
        return json.loads(self.socket.recv_multipart()[-1])


@pytest.mark.parametrize(
    "frames",
    [
        (b"",),
        (b"", b""),
        (b"", b"", b""),
        (b"a", b"b"),
        (b"null",),
        (b"[]",),
        (b"{}",),
        (b'{"op": "explode"}',),
        (b'{"op": 5}',),
        (b'{"op": "record"}',),
        (b'{"op": "record", "name": 5}',),
        (b'{"op": "record", "name": "Ada", "seconds": 1e9}',),
        (b'{"op": "record", "name": "Ada", "seconds": "5"}',),
        (b'{"op": "status", "more": 1}',),
        (b'{"op": "gallery.delete", "name": "\\ud800"}',),
        (b"[" * 60_000,),
        (b"\xff\xfe\x00",),
        tuple(b"x" for _ in range(200)),
    ],
    ids=lambda frames: repr(frames)[:40],
)
def test_nonsense_is_refused_as_a_bad_request(running, frames):
    with Raw(running) as client:
        reply = client.ask(*frames)
        assert (reply["reply"], reply["code"]) == ("refused", "bad_request")
        assert client.ask(b'{"op": "status"}')["reply"] == "status"


def test_a_dealer_and_a_req_socket_are_both_served(running):
    for kind in (zmq.DEALER, zmq.REQ):
        with Raw(running, kind) as client:
            assert client.ask(b'{"op":"status"}')["state"] == "idle"


def test_random_bytes_never_end_it(running):
    chance = random.Random(5)  # noqa: S311 - the same bytes each time
    with Raw(running) as client:
        for _ in range(300):
            client.socket.send_multipart(
                [
                    chance.randbytes(chance.choice([0, 1, 8, 200, 4000]))
                    for _ in range(chance.choice([1, 1, 2, 3]))
                ]
            )
        for _ in range(300):
            assert client.socket.poll(2000)
            client.socket.recv_multipart()
    assert running.ask(GetStatus(), Status).state == "idle"


def test_a_message_beyond_the_limit_is_not_read_and_others_are_still_served(running):
    with Raw(running) as client:
        assert client.ask(b" " * (MAX_REQUEST - 16) + b'{"op":"status"}')["reply"] == "status"
        client.socket.send(b" " * (MAX_REQUEST + 1))
        assert not client.socket.poll(300)
    assert running.ask(GetStatus(), Status).state == "idle"


def test_bytes_that_are_not_zeromq_never_end_it(running):
    for content in (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(500), b"\xff" + b"\0" * 8 + b"\x7f"):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(running.endpoint.removeprefix("ipc://"))
            stranger.sendall(content)
    assert running.ask(GetStatus(), Status).state == "idle"


def test_clients_that_go_without_waiting_cost_nothing(running):
    for _ in range(20):
        with Raw(running) as client:
            client.socket.send(b'{"op":"gallery.list"}')
    assert running.ask(GetStatus(), Status).state == "idle"


# The socket


def test_its_owner_alone_may_use_the_socket(tmp_path, running):
    file = tmp_path / "run" / "c"
    assert stat.S_ISSOCK(file.stat().st_mode)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_second_daemon_is_refused_and_the_first_goes_on(running):
    second = started(running.config)
    assert second.stage.join(5)
    assert isinstance(second.stage.failure, EndpointError)
    assert "another program listens here" in str(second.stage.failure)
    assert running.ask(GetStatus(), Status).pack == PACK


def _die_listening(config: Config) -> None:
    started(config)
    os._exit(9)


def test_the_socket_of_a_daemon_that_was_killed_is_in_nobodys_way(tmp_path):
    config = configured(tmp_path)
    killed = multiprocessing.get_context("fork").Process(target=_die_listening, args=[config])
    killed.start()
    killed.join(20)
    assert (tmp_path / "run" / "c").exists()
    with pytest.raises(ControlError, match="no daemon answers"):
        request(config.control_endpoint, GetStatus(), Status, 1.0)
    running = started(config)
    assert running.ask(GetStatus(), Status).pack == PACK
    running.stage.stop()
    assert running.stage.join(5)


def test_it_serves_tcp_too(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = started(configured(tmp_path, f"tcp://127.0.0.1:{port}"))
    assert running.ask(GetStatus(), Status).pack == PACK
    second = started(running.config)
    assert second.stage.join(5)
    assert "another program listens here" in str(second.stage.failure)
    running.stage.stop()
    assert running.stage.join(5)


@pytest.mark.parametrize(
    ("endpoint", "word"),
    [
        ("ipc:///proc/nowhere/c", "No such file"),
        ("ipc:///" + "x" * 120, "characters of path"),
        ("tcp://192.0.2.1:70000", "tcp://ADDRESS:PORT"),
        ("tcp://nonsense", "tcp://ADDRESS:PORT"),
        ("udp://127.0.0.1:1", "name ipc:///FOLDER/NAME.sock"),
    ],
)
def test_an_endpoint_that_cannot_be_is_named(tmp_path, endpoint, word):
    stage = ControlStage(configured(tmp_path, endpoint), PACK, Live(Snapshot()), Mailbox[Event](9), THRESHOLD)
    stage.start()
    assert stage.join(5)
    assert isinstance(stage.failure, EndpointError)
    assert endpoint in str(stage.failure)
    assert word in str(stage.failure)


def test_a_damaged_gallery_is_the_stages_failure(tmp_path):
    (tmp_path / "gallery.db").write_bytes(b"no database" * 1000)
    running = started(configured(tmp_path))
    assert running.stage.join(5)
    assert isinstance(running.stage.failure, GalleryError)


# The client


def test_where_no_daemon_runs_the_client_says_how_to_start_one(tmp_path):
    for endpoint in (f"ipc://{tmp_path}/none", "tcp://127.0.0.1:9"):
        assert not daemon_listens(endpoint)
        with pytest.raises(ControlError, match="is it running\\? `cabinsense run` starts it") as told:
            request(endpoint, GetStatus(), Status, 1.0)
        assert told.value.code == "no_daemon"


def test_the_client_gives_up_on_a_daemon_that_hangs(tmp_path):
    endpoint = f"ipc://{tmp_path}/c"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as deaf:
        deaf.linger = 0
        deaf.bind(endpoint)
        began = time.monotonic()
        with pytest.raises(ControlError, match=r"did not answer within 0\.5 s") as told:
            request(endpoint, GetStatus(), Status, 0.5)
        assert time.monotonic() - began < 2
    assert told.value.code == "no_answer"


def _die_asked(endpoint: str) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as door:
        door.bind(endpoint)
        door.recv_multipart()
        os._exit(9)


def test_a_client_does_not_wait_for_a_daemon_that_has_died(tmp_path):
    endpoint = f"ipc://{tmp_path}/c"
    dying = multiprocessing.get_context("fork").Process(target=_die_asked, args=[endpoint])
    dying.start()
    wait_until(lambda: daemon_listens(endpoint))
    began = time.monotonic()
    with pytest.raises(ControlError, match=r"ended before it answered; look at its log") as told:
        request(endpoint, Record(name="Ada"), Recorded, 30.0)
    assert told.value.code == "no_daemon"
    assert time.monotonic() - began < 5
    dying.join(5)


@pytest.mark.parametrize("answer", [b"", b"hello", b'{"reply": "done"}', msgspec.json.encode({"reply": 5})])
def test_an_answer_that_is_none_is_told(tmp_path, answer):
    endpoint = f"ipc://{tmp_path}/c"
    with zmq.Context() as context, context.socket(zmq.REP) as other:
        other.linger = 0
        other.bind(endpoint)
        echo = threading.Thread(target=lambda: (other.recv(), other.send(answer)))
        echo.start()
        with pytest.raises(ControlError) as told:
            request(endpoint, GetStatus(), Status, 5.0)
        echo.join()
    assert told.value.code == "no_answer"
    assert endpoint in str(told.value)
