"""Run the agent for many frames and watch its memory: ``python -m tests.soak [--frames 20000]`` (``make soak``).

The sample clip plays in a loop as fast as the chain goes, every frame of it is read, and a subscriber counts what
arrives. Exit status 1 when memory grows, is above the limit, or an event is missing.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import zmq

from agent import paths
from agent.samples import clip

LIMIT_MB = 450.0
GROWTH = 0.02  # of the figure after the first tenth, when every buffer has been allocated
_SILENCE_MS = 30_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000)
    frames = parser.parse_args().frames
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.toml"
        config.write_text(
            f'pack = "{paths.data_dir() / "packs" / "default"}"\n'
            f'[[cameras]]\nname = "cabin"\nsource = "{clip()}"\nloop = true\nevery_frame = true\nfps = 1000\n'
            f'[events]\nendpoint = "ipc://{folder}/e"\n[control]\nendpoint = "ipc://{folder}/c"\n'
        )
        command = [sys.executable, "-m", "agent", "run", "--no-table", "--config", str(config)]
        daemon = subprocess.Popen(
            command, env=os.environ | {"CABINSENSE_DATA": folder}, stdout=subprocess.DEVNULL
        )
        try:
            return watch(daemon, f"ipc://{folder}/e", frames)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(timeout=10)


def watch(daemon: "subprocess.Popen[bytes]", endpoint: str, frames: int) -> int:
    """Count face events until ``frames`` have come; 1 if anything was not as promised."""
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.subscribe("face")
    socket.connect(endpoint)
    process = psutil.Process(daemon.pid)
    first = last = gaps = 0
    rss: list[float] = []
    while last - first < frames:
        if not socket.poll(_SILENCE_MS):
            print("no event for 30 s", file=sys.stderr)
            return 1
        seq = json.loads(socket.recv_multipart()[1])["seq"]
        gaps += bool(last) and seq != last + 1
        first, last = first or seq, seq
        if (last - first) % max(1, frames // 20) == 0:
            rss.append(process.memory_info().rss / 2**20)
            print(
                f"{last - first:6d} frames  {rss[-1]:6.1f} MiB  {process.num_threads()} threads", flush=True
            )
    settled = rss[2]
    growth = max(rss[2:]) / settled - 1
    print(f"peak {max(rss):.1f} MiB, growth after the first tenth {growth:+.2%}, gaps {gaps}")
    return int(growth > GROWTH or max(rss) > LIMIT_MB or gaps > 0)


if __name__ == "__main__":
    sys.exit(main())
