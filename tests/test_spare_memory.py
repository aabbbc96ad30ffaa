"""Memory that was freed behind something that is still held goes back to the system when it is asked for."""

import platform

import psutil
import pytest

from agent import spare_memory

MIB = 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps it, and can be asked")
def test_holes_are_given_back():
    blocks = [bytearray(b"x" * 65_536) for _ in range(2000)]  # too small to be mapped each for itself
    held = blocks[-1]
    full = psutil.Process().memory_info().rss
    blocks.clear()
    spare_memory.give_back()
    assert full - psutil.Process().memory_info().rss > 100 * MIB
    assert len(held) == 65_536
