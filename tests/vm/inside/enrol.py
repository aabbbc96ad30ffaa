"""Inside the guest: enrol somebody before the camera. There everybody is one person, so that is said to be right."""

import sys

from agent.config import load
from agent.control import Record, Recorded, request

_PATIENCE_S = 60.0


def enrol(name: str) -> str:
    """Record this person for two seconds; the name that the daemon gives."""
    wanted = Record(name=name, seconds=2, anyway=True)
    return request(load().control_endpoint, wanted, Recorded, _PATIENCE_S).name


if __name__ == "__main__":
    enrol(sys.argv[1])
