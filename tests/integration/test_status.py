"""What the running agent says of itself: to a person, to a program, to Prometheus."""

import json
import os
import pty
import select
import signal
import socket
import subprocess
import urllib.request

import pytest


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


def test_people_programs_and_prometheus_learn_how_the_agent_is(agent, daemon, subscribe):
    pytest.importorskip("prometheus_client")
    port = free_port()
    subscriber = subscribe("face", "health")
    daemon(more=f'[metrics]\nlisten = "127.0.0.1:{port}"')
    subscriber.wait_for(topic="face")
    subscriber.wait_for(topic="health")

    told = agent.run("status")
    assert told.returncode == 0, told.stderr
    for word in ("watching for", "0 people", "cabin", "open", "perception", "p99"):
        assert word in told.stdout
    status = json.loads(agent.run("status", "--json").stdout)
    assert status["state"] == "idle"
    assert status["health"]["cameras"][0]["name"] == "cabin"
    assert {"publisher", "control", "perception", "health", "metrics", "camera cabin"} == set(
        status["health"]["stages"]
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        figures = answer.read().decode()
    assert 'cabinsense_camera_up{camera="cabin"} 1.0' in figures
    (count,) = [line for line in figures.splitlines() if line.startswith("cabinsense_frame_seconds_count")]
    assert float(count.split()[1]) > 0


def test_without_an_agent_it_says_so_with_status_3(agent):
    for arguments in (["status"], ["status", "--json"]):
        told = agent.run(*arguments)
        assert (told.returncode, told.stdout) == (3, "")
        assert "no daemon" in told.stderr


def test_who_watches_sees_the_agent_come_and_go(agent, daemon, subscribe):
    master, terminal = pty.openpty()
    watching = subprocess.Popen(
        agent.command("status", "--watch"),
        env=agent.environment() | {"TERM": "xterm", "COLUMNS": "120"},
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)

    def wait_for(words: bytes) -> None:
        seen = b""
        while words not in seen:
            assert select.select([master], [], [], 30)[0], f"no {words} in {seen}"
            seen += os.read(master, 65536)

    try:
        wait_for(b"no daemon answers")
        process = daemon()
        wait_for(b"frames a second")
        process.terminate()
        process.wait(20)
        wait_for(b"no daemon answers")
    finally:
        watching.send_signal(signal.SIGINT)
    assert watching.wait(20) == 0
    os.close(master)
