"""Hand values from thread to thread without ever waiting on the receiver: what is too much falls out and is counted."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A bounded hand-over: a value put into a full box pushes out the oldest unread one.

    With the capacity 1 it is the one-slot ``Latest`` of a camera: the receiver always gets the newest frame, and memory
    stays flat whatever stalls. A value that pushes another out of a one-slot box takes its place in the queue: so a
    camera that delivers faster than its frames are taken does not put itself last time and again.
    """

    def __init__(self, capacity: int = 1, arrival: threading.Condition | None = None) -> None:
        """A box of ``capacity`` values; boxes that share ``arrival`` can be waited on together by ``take_any``."""
        self._items: deque[tuple[float, T]] = deque()
        self._capacity = capacity
        self.arrival = arrival or threading.Condition()
        self.dropped = 0

    def put(self, item: T) -> None:
        """Leave a value; never waits for the receiver."""
        with self.arrival:
            since = time.monotonic()
            if len(self._items) >= self._capacity:
                oldest, _ = self._items.popleft()
                self.dropped += 1
                if self._capacity == 1:
                    since = oldest
            self._items.append((since, item))
            self.arrival.notify_all()

    def put_when_free(self, item: T, timeout: float) -> bool:
        """Leave a value once there is room; False if there was none within ``timeout`` seconds."""
        with self.arrival:
            if not self.arrival.wait_for(lambda: len(self._items) < self._capacity, timeout):
                return False
            self._items.append((time.monotonic(), item))
            self.arrival.notify_all()
            return True

    def take(self, timeout: float) -> T | None:
        """The oldest unread value, or None when none came within ``timeout`` seconds."""
        return take_any([self], self.arrival, timeout)

    def __len__(self) -> int:
        """How many values are unread."""
        with self.arrival:
            return len(self._items)


def take_any(boxes: Sequence[Mailbox[T]], arrival: threading.Condition, timeout: float) -> T | None:
    """The value whose place in any of ``boxes``, which share ``arrival``, is the oldest; None after ``timeout`` s."""
    with arrival:
        if not arrival.wait_for(lambda: any(box._items for box in boxes), timeout):
            return None
        oldest = min((box for box in boxes if box._items), key=lambda box: box._items[0][0])
        _, item = oldest._items.popleft()
        arrival.notify_all()
        return item
