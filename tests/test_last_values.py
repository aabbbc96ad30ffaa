"""Who subscribes late is told what holds, and nothing that holds no more."""

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent.events import EmotionEvent, FaceEvent, HealthEvent, IdentityEvent
from agent.events_doc import EXAMPLES
from agent.last_values import LastValues

WHERE = {"monotonic": 10.0, "utc": "2025-03-14T07:21:09.482113Z", "camera": "cabin"}
STALE_S = 1.5


def identity(track: int, change: str, camera: str = "cabin", **more: object) -> IdentityEvent:
    return IdentityEvent(**(WHERE | {"camera": camera} | more), track=track, change=change)


def emotion(track: int, label: str) -> EmotionEvent:
    return EmotionEvent(**WHERE, track=track, label=label, probabilities={})


def face(at: float, camera: str = "cabin") -> FaceEvent:
    return FaceEvent(
        **(WHERE | {"camera": camera, "monotonic": at}), faces=(), stage_ms={}, total_ms=1.0, rung=0
    )


def health(uptime: float) -> HealthEvent:
    return msgspec.structs.replace(EXAMPLES["health"], uptime=uptime)


class Told:
    """Last values, and the numbers that the publisher would give."""

    def __init__(self) -> None:
        self.values = LastValues(STALE_S)
        self.counts: Counter[str] = Counter()

    def number(self, topic: str) -> int:
        self.counts[topic] += 1
        return self.counts[topic]

    def say(self, *events) -> None:
        for event in events:
            topic = event.__struct_config__.tag
            self.values.note(topic, msgspec.structs.replace(event, seq=self.number(topic)))

    def again(self, *subscriptions: str, now: float = 10.0) -> list:
        return [event for _, event in self.values.told_again(subscriptions, now, self.number)]


def test_of_each_living_track_the_newest_is_told_and_the_newest_health():
    told = Told()
    told.say(face(10.0), identity(1, "seen"), identity(2, "seen"), emotion(1, "sad"), health(1.0))
    told.say(identity(1, "confirmed"), emotion(1, "happy"), health(2.0))
    again = told.again("")
    assert [(each.track, each.change) for each in again if isinstance(each, IdentityEvent)] == [
        (1, "confirmed"), (2, "seen")
    ]  # fmt: skip
    assert [(each.track, each.label) for each in again if isinstance(each, EmotionEvent)] == [(1, "happy")]
    assert [each.uptime for each in again if isinstance(each, HealthEvent)] == [2.0]
    assert not any(isinstance(each, FaceEvent) for each in again)


def test_of_a_track_that_is_lost_nothing_is_told():
    told = Told()
    told.say(face(10.0), identity(1, "seen"), emotion(1, "sad"), identity(1, "lost"))
    assert told.again("") == []


def test_the_same_track_number_on_two_cameras_is_two_faces():
    told = Told()
    told.say(face(10.0), face(10.0, "rear"), identity(1, "seen"), identity(1, "unknown", "rear"))
    told.say(identity(1, "lost"))
    assert [(each.camera, each.change) for each in told.again("identity")] == [("rear", "unknown")]


def test_only_what_was_subscribed_to_is_told_and_once_however_many_subscribe():
    told = Told()
    told.say(face(10.0), identity(1, "seen"), emotion(1, "sad"), health(1.0))
    assert [type(each) for each in told.again("id", "identity", "identity")] == [IdentityEvent]
    assert told.again("identity!") == []
    assert told.again("face") == []


def test_what_a_silent_camera_said_is_not_valid_and_is_again_once_it_delivers():
    told = Told()
    told.say(face(10.0), face(10.0, "rear"), identity(1, "seen"), identity(1, "seen", "rear"), health(1.0))
    told.say(face(12.0, "rear"))
    late = {(each.camera, each.valid) for each in told.again("", now=12.0)}
    assert late == {("", True), ("cabin", False), ("rear", True)}
    told.say(face(12.1))
    assert all(each.valid for each in told.again("identity", now=12.2))


def test_what_was_not_valid_when_it_was_said_does_not_become_so():
    told = Told()
    told.say(face(10.0), identity(1, "seen", valid=False))
    (event,) = told.again("identity")
    assert not event.valid


@given(st.lists(st.sampled_from(["say", "again"]), max_size=30), st.integers(0, 30))
def test_whoever_listens_from_some_point_on_can_tell_news_from_repetitions(acts, joined):
    """The rule of the reference: leave out what repeats a number from the first that you have heard on."""
    told = Told()
    told.say(face(10.0))
    sent: list[tuple[int, IdentityEvent]] = []
    for number, act in enumerate(acts):
        if act == "say":
            told.say(identity(number % 3, "seen", frame=number))
            sent.append((number, identity(number % 3, "seen", frame=number, seq=told.counts["identity"])))
        else:
            sent += [(number, each) for each in told.again("identity")]
    numbers = [event.seq for _, event in sent]
    assert numbers == list(range(1, len(sent) + 1))  # no gap, whoever subscribes
    heard = [event for at, event in sent if at >= joined]
    kept = [event for event in heard if event.repeats < heard[0].seq]
    frames = [event.frame for event in kept]
    assert len(frames) == len(set(frames))  # nothing twice
    assert set(frames) == {event.frame for event in heard}  # and nothing lost
    assert all(event.repeats == 0 or event.repeats < event.seq for event in heard)
