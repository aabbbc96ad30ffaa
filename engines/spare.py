"""Keep one costly thing in reserve: while one is in use the other is changed, and then they change places."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Spare(Generic[T]):
    """Instances that are in use, and at most one that is not. Any thread may call any method.

    An instance is in use from ``take`` to ``give_back`` or ``drop``. When none is in use any more, all are scrapped.
    Whoever gives back the old one before taking the next never has more than two.
    """

    def __init__(self, make: Callable[[], T], scrap: Callable[[T], None]) -> None:
        """``make`` gives a new instance, ``scrap`` releases what one holds."""
        self._make = make
        self._scrap = scrap
        self._lock = threading.Lock()
        self._spare: list[T] = []
        self._used = 0

    def take(self) -> T:
        """An instance that nobody uses: the spare one in whatever state it was given back, or a new one."""
        with self._lock:
            self._used += 1
            if self._spare:
                return self._spare.pop()
        try:
            return self._make()
        except BaseException:
            with self._lock:
                self._used -= 1
                superfluous = self._superfluous()
            self._scrap_all(superfluous)
            raise

    def give_back(self, instance: T) -> None:
        """``instance`` is not used any more and may be taken again."""
        with self._lock:
            self._used -= 1
            self._spare.append(instance)
            superfluous = self._superfluous()
        self._scrap_all(superfluous)

    def drop(self, instance: T) -> None:
        """``instance`` is in an unknown state and must not be taken again."""
        with self._lock:
            self._used -= 1
            superfluous = [instance, *self._superfluous()]
        self._scrap_all(superfluous)

    def _superfluous(self) -> list[T]:
        """Take away all spare instances but one, or all if nobody uses any."""
        kept = 1 if self._used else 0
        superfluous, self._spare = self._spare[kept:], self._spare[:kept]
        return superfluous

    def _scrap_all(self, instances: list[T]) -> None:
        for each in instances:
            self._scrap(each)
