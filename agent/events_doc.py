"""Make ``docs/events.md`` from the schema: ``python -m agent.events_doc > docs/events.md``."""

import inspect
import re
import sys
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from agent.events import (
    SCHEMA,
    TOPICS,
    AdaptationEvent,
    CameraHealth,
    DriverEvent,
    EmotionEvent,
    EnrollmentEvent,
    Event,
    FaceEvent,
    FaceReport,
    HealthEvent,
    IdentityEvent,
    Pose,
    QualityReport,
)
from agent.guidance import ADVICE
from agent.publishing import Origin
from agent.reference import meaning, type_words

_INTRODUCTION = f"""\
# Events

What the agent publishes. This file is made from `agent/events.py` by `python -m agent.events_doc > docs/events.md`;
schema {SCHEMA}.

## On the wire

A ZeroMQ PUB socket at `events.endpoint` of the configuration; without it `ipc://FOLDER/events.sock`, where FOLDER is
the first that is set of `$RUNTIME_DIRECTORY` (the service's, `/run/cabinsense`) and `$XDG_RUNTIME_DIR/cabinsense`, else
`run` in the data folder. Only the daemon's own user may use the socket; a `tcp://` endpoint asks for keys, see
[network.md](network.md). Every message has two parts:

1. the topic: {", ".join(f"`{topic}`" for topic in TOPICS)};
2. one JSON object in UTF-8, or a MessagePack map of the same shape where `events.encoding` says `msgpack`.

`cabinsense events [--topic T]` prints them as JSON lines. From Python:

```python
import json, zmq

socket = zmq.Context().socket(zmq.SUB)
socket.connect("ipc:///run/cabinsense/events.sock")
socket.subscribe("identity")  # the start of the topics wanted; "" for all
while True:
    topic, body = socket.recv_multipart()
    print(json.loads(body))
```

## What you can rely on

- **Order.** Messages come in the order in which they were published, over all topics. For a frame that is: `face`, then
  what has changed face by face (`identity` before `emotion`), then the tracks that have ended, then the `driver`. The
  frames of one camera come in the order of capture.
- **Gaps.** `seq` counts the messages of a topic from 1. A number left out means that this subscriber missed messages,
  because it was too slow (the agent keeps `events.queue` messages for each subscriber) or not connected; a number that
  is not greater than the last one means that the agent was started anew. `frame` has gaps of its own: frames that were
  not looked at.
- **The present state at once.** Who subscribes to a topic is told what holds: the newest `health` and `driver`, and the
  newest `identity` and `emotion` of each track that is alive. These are messages like others, with numbers of their
  own, but `repeats` is not 0 and `monotonic`, `utc` and `frame` are those of the time they tell of. ZeroMQ can send
  them only to everybody who wants the topic, so when somebody else subscribes you hear them too. Leave out what you
  know: a message whose `repeats` is not less than the first `seq` that you have heard of its topic. `valid` is false
  when the camera has delivered nothing since.
- **Nobody waits.** A subscriber that stalls or dies slows neither the agent nor other subscribers.
- **Validity.** Believe a message only when `valid` is true. It is false when the frame was too old by the time it had
  been looked at, and while the lens is covered or the picture frozen: an empty `face` event then does not mean that
  nobody is there, nor a face that somebody is. A change that was told while not valid is told again once it is, so
  leaving out such messages loses no change. Only `lost` is told once and holds in any case: the track has ended.
  `driver` is sent only when it is valid; what cannot be seen is `uncertain` there.
- **Changes.** The `identity` events of a track begin with `seen` and end with `lost`; in between come `confirmed`,
  `unknown` and back, as the evidence changes. A track's number is never used again for its camera until the agent is
  started anew. When the agent stops, tracks end without `lost`.
- **Schema.** Within one `schema` fields are only added. Leave out fields that you do not know.
"""

_ORIGIN: Origin = {
    "monotonic": 8231.406117,
    "utc": "2025-03-14T07:21:09.482113Z",
    "camera": "cabin",
    "frame": 1204,
    "valid": True,
}

EXAMPLES: dict[str, Event] = {
    "face": FaceEvent(
        **_ORIGIN,
        seq=1205,
        faces=(
            FaceReport(
                track=3,
                box=(212.41, 88.02, 371.9, 290.55),
                score=0.9312,
                landmarks=((254.1, 168.3), (329.7, 165.9), (293.0, 212.4), (262.8, 247.1), (324.5, 245.2)),
                coasting=False,
                state="confirmed",
                person="Ada",
                emotion="neutral",
                quality=QualityReport(size=75.64, sharpness=210.4, brightness=118.2, contrast=44.7),
                pose=Pose(yaw=-3.1, pitch=4.0, roll=-1.8),
            ),
        ),
        stage_ms={"resize": 0.21, "detect": 5.6, "decode": 0.3, "track": 0.05, "decide": 0.02},
        total_ms=6.18,
        rung=0,
        late=False,
    ),
    "identity": IdentityEvent(
        **_ORIGIN,
        seq=2,
        track=3,
        change="confirmed",
        person="Ada",
        score=0.958112,
        threshold=0.93,
        second=0.842907,
    ),
    "emotion": EmotionEvent(
        **_ORIGIN,
        seq=1,
        track=3,
        label="happy",
        probabilities={
            "angry": 0.01,
            "disgust": 0.0,
            "fear": 0.01,
            "happy": 0.87,
            "sad": 0.01,
            "surprise": 0.02,
            "neutral": 0.08,
        },
    ),
    "driver": DriverEvent(
        **_ORIGIN,
        seq=7,
        present=True,
        track=3,
        state="confirmed",
        person="Ada",
        emotion="neutral",
        pose=Pose(yaw=38.4, pitch=-6.0, roll=-1.8),
        attention="distracted",
        since=8228.239402,
        away_s=3.67,
        warning=1,
        reason="long_look",
    ),
    "enrollment": EnrollmentEvent(
        **_ORIGIN,
        seq=5,
        person="Ada",
        state="hint",
        samples=3,
        wanted=12,
        pose="left",
        hint="turn_left",
        advice=ADVICE["turn_left"],
    ),
    "adaptation": AdaptationEvent(
        monotonic=_ORIGIN["monotonic"],
        utc=_ORIGIN["utc"],
        seq=7,
        tier="statistics",
        accepted=True,
        state="adapted",
        reason="better",
        figures={"chips": 96, "entropy_before": 1.3127, "entropy_after": 1.1049, "cosine": 0.9871},
        layers=("branch1", "input"),
        decide_ms=412.5,
        build_ms=131.8,
        swap_ms=0.0213,
    ),
    "health": HealthEvent(
        monotonic=_ORIGIN["monotonic"],
        utc=_ORIGIN["utc"],
        seq=40,
        uptime=40.003,
        pack="4f0c4be5b3a1d9d27c7f6a0c2b8f1e35a90d7be6c3f2184e5a6d0b9c8e7f1a23",
        people=2,
        cameras=(CameraHealth(name="cabin", state="open", frames=1205, dropped=4, reopened=0),),
        fps=29.97,
        frame_ms={"p50": 6.2, "p95": 9.8, "p99": 11.3},
        missed=1,
        dropped_frames=3,
        rung=0,
        budget_ms=20.0,
        celsius={"cpu-thermal": 51.2, "gpu-thermal": 49.7},
        power_mode="MODE_30W",
        stages={"camera cabin": 0.04, "perception": 0.01, "publisher": 0.01, "control": 0.06},
        rss_mb=231.5,
        cpu_percent=34.0,
        dropped=0,
    ),
}
"""One event of each topic."""


def document() -> str:
    """The whole of ``docs/events.md``."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    yield "## Fields of every message"
    yield ""
    yield "`none` among the types is JSON's `null`."
    yield ""
    common = {field.name for field in msgspec.structs.fields(Event)}
    yield from _table(Event, "| `topic` | text | The topic, as in the first part. |")
    described: set[type[Struct]] = set()
    for topic, event in TOPICS.items():
        yield f"\n## `{topic}`\n"
        yield f"{inspect.getdoc(event)}\n"
        yield from _table(event, leave_out=common)
        for part in _parts(event):
            if part not in described:
                described.add(part)
                yield f"\n### `{part.__name__}`\n"
                yield f"{inspect.getdoc(part)}\n"
                yield from _table(part)
        yield "\n```json"
        yield _pretty(EXAMPLES[topic])
        yield "```"
    yield ""


def _pretty(event: Event) -> str:
    """Indented JSON with each list of numbers on a line."""
    text = msgspec.json.format(msgspec.json.encode(event), indent=2).decode()
    return re.sub(r"\[\s+((?:-?[\d.]+,?\s+)+)\]", lambda found: f"[{' '.join(found[1].split())}]", text)


def _table(
    struct: type[Struct], *first: str, leave_out: frozenset[str] | set[str] = frozenset()
) -> Iterator[str]:
    yield "| field | type | meaning |"
    yield "| --- | --- | --- |"
    yield from first
    for field in msgspec.structs.fields(struct):
        if field.name not in leave_out:
            yield f"| `{field.encode_name}` | {type_words(field.type)} | {meaning(struct, field.name)} |"


def _parts(struct: type[Struct]) -> Iterator[type[Struct]]:
    """The structs that ``struct`` holds, however deep, in the order of their first use."""
    for field in msgspec.structs.fields(struct):
        for part in (FaceReport, QualityReport, Pose, CameraHealth):
            if f"`{part.__name__}`" in type_words(field.type):
                yield part
                yield from _parts(part)


if __name__ == "__main__":
    sys.stdout.write(document())
