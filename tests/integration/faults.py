"""Faults that strike a running thread from outside, whatever code it runs: nothing in the agent knows of them."""

import ctypes
import threading
import time
from dataclasses import dataclass, field
from types import FrameType


@dataclass
class _Gate:
    """Where a thread freezes: at its next call of ``function``, until ``opened``."""

    function: str
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)


class Faults:
    """Freezes and ends threads. Threads that may be frozen must be started after this was made."""

    def __init__(self) -> None:
        self._gates: dict[int, _Gate] = {}
        threading.settrace(self._trace)

    def freeze(self, thread: threading.Thread, function: str) -> _Gate:
        """Let the thread stand still when it next calls a function of this name; wait until it does."""
        gate = self._gates[thread.ident] = _Gate(function)
        assert gate.reached.wait(20), f"{thread.name} never called {function}"
        return gate

    def strike(self, thread: threading.Thread, error: type[BaseException]) -> None:
        """Raise an error in the thread, wherever it is, until it ends: some code swallows what it does not expect."""
        deadline = time.monotonic() + 20
        while thread.is_alive():
            assert time.monotonic() < deadline, f"{thread.name} survives"
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(error))
            thread.join(2)

    def end(self) -> None:
        """Let everything go on, and strike no more."""
        threading.settrace(None)
        for gate in self._gates.values():
            gate.opened.set()

    def _trace(self, frame: FrameType, event: str, arg: object) -> None:
        gate = self._gates.get(threading.get_ident())
        if gate and not gate.opened.is_set() and frame.f_code.co_name == gate.function:
            gate.reached.set()
            gate.opened.wait()
