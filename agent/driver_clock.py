"""When a frame was captured, by the clock of a camera's driver."""

_FIRST_AGE_S = 1.0  # at most so old is the first frame of a camera that has just been opened


class DriverClock:
    """Believes the time stamps of one opening of a camera, as long as they can be what they are taken for.

    The buffers of Video4Linux carry the time of capture, by default on the clock that ``time.monotonic`` reads
    (V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC in the kernel's documentation of ``struct v4l2_buffer``). OpenCV hands it on as
    CAP_PROP_POS_MSEC, without the flag. Some drivers use another clock, and some do not stamp at all. So the first
    stamp decides: it must lie in the second before the frame was read. Later frames may be of any age, for that is what
    the stamp is for: one that waited in the driver while the process was stopped is old.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self._wrong = False

    def captured(self, stamp_ms: float, now: float) -> float | None:
        """When the frame was captured, monotonic seconds; None if the driver does not know.

        Args:
            stamp_ms: what the driver says, milliseconds.
            now: when the frame was read, monotonic seconds.
        """
        stamp = stamp_ms / 1e3
        least = now - _FIRST_AGE_S if self._last is None else self._last
        if self._wrong or not least < stamp <= now:
            self._wrong = True
            return None
        self._last = stamp
        return stamp
