"""What was last said and still holds: told again to whoever subscribes, so that nobody waits for a change. Pure."""

from collections.abc import Callable, Collection

import msgspec

from agent.events import Event, IdentityEvent

_KEPT: dict[str, tuple[str, ...]] = {
    "health": (),
    "driver": ("camera",),
    "identity": ("camera", "track"),
    "emotion": ("camera", "track"),
}
"""The topics that tell a state, and the fields that say whose it is. The others tell what happens."""

_Key = tuple[object, ...]


class LastValues:
    """The newest event of each topic in ``_KEPT``, for each camera or living track."""

    def __init__(self, stale_s: float) -> None:
        """What a camera has said holds as long as its newest frame is not older than ``stale_s``, seconds."""
        self._stale_s = stale_s
        self._said: dict[str, dict[_Key, Event]] = {topic: {} for topic in _KEPT}
        self._seen: dict[str, float] = {}

    def note(self, topic: str, event: Event) -> None:
        """Take note of an event that is being sent, with its number."""
        if topic == "face":
            self._seen[event.camera] = event.monotonic
        if topic not in _KEPT:
            return
        if isinstance(event, IdentityEvent) and event.change == "lost":
            for said in self._said.values():
                said.pop((event.camera, event.track), None)
            return
        self._said[topic][tuple(getattr(event, name) for name in _KEPT[topic])] = event

    def told_again(
        self, subscriptions: Collection[str], now: float, number: Callable[[str], int]
    ) -> list[tuple[str, Event]]:
        """The topics and events that those who have just subscribed need to know, each once.

        An event says under which number it was last sent, and is not valid if its camera has been silent since.

        Args:
            subscriptions: starts of the topics wanted.
            now: on the clock of ``Event.monotonic``, seconds.
            number: the next number of a topic.
        """
        told: list[tuple[str, Event]] = []
        for topic, said in self._said.items():
            if any(topic.startswith(start) for start in subscriptions):
                for key, event in said.items():
                    said[key] = msgspec.structs.replace(event, seq=number(topic))
                    holds = event.valid and (not event.camera or self._is_fresh(event.camera, now))
                    told.append((topic, msgspec.structs.replace(said[key], repeats=event.seq, valid=holds)))
        return told

    def _is_fresh(self, camera: str, now: float) -> bool:
        return camera in self._seen and now - self._seen[camera] <= self._stale_s
