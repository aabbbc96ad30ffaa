"""Record what is sent to a CUDA stream once, and send it again in one call.

pycuda (up to 2026.1) does not wrap this part of the driver, so the driver is called directly. The caller's CUDA context
is current in every call.
"""

import ctypes
from collections.abc import Callable

from engines.engine import EngineError

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate while this one records


class CudaGraph:
    """A recorded sequence of copies and kernels on one stream, with fixed addresses."""

    def __init__(self, stream: int, work: Callable[[], None]) -> None:
        """Record what ``work`` sends to ``stream`` (a CUstream); nothing of it runs yet.

        Raises:
            EngineError: the driver cannot record it.
        """
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._stream = ctypes.c_void_p(stream)
        self._executable = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(_THREAD_LOCAL))
        try:
            work()
        except BaseException:
            self._driver.cuStreamEndCapture(self._stream, ctypes.byref(graph))  # ends it; there is no graph
            raise
        self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        try:
            self._call(
                "cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0)
            )
        finally:
            self._driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Send the recorded work to the stream; it is done when the stream is synchronised.

        Raises:
            EngineError: the driver refuses.
        """
        self._call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Release the recording."""
        if self._executable:
            self._driver.cuGraphExecDestroy(self._executable)
            self._executable = ctypes.c_void_p()

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status:
            raise EngineError(f"CUDA graph: {name} failed with error {status}; restart the agent")
