"""Prometheus gets its figures, whoever else knocks at the door."""

import contextlib
import socket
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("prometheus_client")

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent.config import ConfigError, Metrics, parse
from agent.events import CameraHealth, HealthEvent
from agent.gallery.types import Snapshot
from agent.live import Live
from agent.metrics import CONTENT_TYPE, Exposition
from agent.perception.types import Reading, Stamp
from agent.sockets import EndpointError
from agent.stages.metrics import MetricsStage
from agent.statistics import FrameTimes

HEALTH = HealthEvent(
    monotonic=1.0,
    utc="2025-03-14T07:21:09.482113Z",
    uptime=5.0,
    pack="ab" * 32,
    people=3,
    cameras=(
        CameraHealth(name="cabin", state="open", frames=90, dropped=2, reopened=1),
        CameraHealth(name="rear", state="failed", frames=0, dropped=0, reopened=0, error="gone"),
    ),
    fps=30.0,
    frame_ms={},
    stages={"perception": 0.25, "camera cabin": 0.1},
    restarts={"perception": 2},
    rss_mb=100.0,
    cpu_percent=10.0,
    dropped=7,
    stalled=4,
    budget_ms=18.0,
    celsius={"gpu": 51.5},
    problems=("camera rear: gone",),
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


def figures(live: Live, times: FrameTimes) -> dict[tuple, float]:
    """Every figure by its name and labels."""
    families = text_string_to_metric_families(Exposition(live, times).text().decode())
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def serve() -> Iterator[Callable[..., MetricsStage]]:
    stages: list[MetricsStage] = []

    def start(listen: str) -> MetricsStage:
        live = Live(Snapshot())
        live.health = HEALTH
        stage = MetricsStage(Metrics(listen=listen), Exposition(live, FrameTimes()).text, CONTENT_TYPE)
        stages.append(stage)
        stage.start()
        deadline = time.monotonic() + 20
        while stage.beaten is None and stage.alive:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return stage

    yield start
    for stage in stages:
        stage.stop()
        assert stage.join(5)


def scrape(port: int, path: str = "/metrics") -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            assert answer.headers["Content-Type"] == CONTENT_TYPE
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_cameras_stages_people_and_drops_are_told_by_name():
    live = Live(Snapshot())
    live.health = HEALTH
    told = figures(live, FrameTimes())
    assert told["cabinsense_frames_total", "cabin"] == 90
    assert told["cabinsense_frames_dropped_total", "cabin"] == 2
    assert told["cabinsense_camera_reopened_total", "cabin"] == 1
    assert (told["cabinsense_camera_up", "cabin"], told["cabinsense_camera_up", "rear"]) == (1, 0)
    assert told["cabinsense_stage_restarts_total", "perception"] == 2
    assert told["cabinsense_stage_restarts_total", "camera cabin"] == 0
    assert told["cabinsense_stage_heartbeat_age_seconds", "perception"] == 0.25
    assert told["cabinsense_gallery_people",] == 3
    assert told["cabinsense_messages_dropped_total",] == 7
    assert told["cabinsense_problems",] == 1
    assert told["cabinsense_camera_clear", "cabin"] == 1
    assert told["cabinsense_subscriber_stalls_total",] == 4
    assert told["cabinsense_budget_seconds",] == 0.018
    assert told["cabinsense_temperature_celsius", "gpu"] == 51.5
    assert told["process_resident_memory_bytes",] > 1e6


def test_before_the_first_health_event_there_are_figures_of_frames():
    told = figures(Live(Snapshot()), FrameTimes())
    assert told["cabinsense_frame_seconds_count",] == 0
    assert not any(name.startswith("cabinsense_camera") for name, *_ in told)


@given(st.lists(st.floats(0.01, 5000), max_size=40))
def test_the_histogram_counts_every_frame_once_and_sums_their_seconds(milliseconds):
    times = FrameTimes()
    for ms in milliseconds:
        times.add(Reading(Stamp("cabin", 0, 0.0, 0.0), (), total_ms=ms, late=ms > 20))
    told = figures(Live(Snapshot()), times)
    assert told["cabinsense_frame_seconds_count",] == len(milliseconds)
    assert told["cabinsense_frames_missed_total",] == sum(ms > 20 for ms in milliseconds)
    assert told["cabinsense_frame_seconds_sum",] == pytest.approx(sum(milliseconds) / 1e3)
    for bound in ("0.005", "0.02", "0.1", "1.0"):
        assert told["cabinsense_frame_seconds_bucket", bound] == sum(
            ms / 1e3 <= float(bound) for ms in milliseconds
        )


def test_prometheus_is_answered_at_its_path_and_nowhere_else(serve):
    port = free_port()
    serve(f"127.0.0.1:{port}")
    status, body = scrape(port)
    assert (status, b'cabinsense_frames_total{camera="cabin"} 90.0' in body) == (200, True)
    assert scrape(port, "/metrics?x=1")[0] == 200
    assert scrape(port, "/")[0] == 404


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0" * 100,
        b"GET /metrics",
        b"POST /metrics HTTP/1.1\r\n\r\n",
        b"GET " + b"a" * 20_000,
        b"\r\n\r\n",
    ],
)
def test_nonsense_gets_no_figures_and_the_next_caller_does(serve, said):
    port = free_port()
    stage = serve(f"127.0.0.1:{port}")
    with socket.create_connection(("127.0.0.1", port)) as caller:
        caller.settimeout(20)
        answer = b""
        with contextlib.suppress(ConnectionError):  # it was hung up on while it still talked
            caller.sendall(said)
            caller.shutdown(socket.SHUT_WR)
            answer = caller.recv(100)
    assert not answer.startswith(b"HTTP/1.1 200")
    assert scrape(port)[0] == 200
    assert stage.failure is None


def test_callers_who_say_nothing_hold_up_the_others_only_for_a_moment_each(serve):
    port = free_port()
    stage = serve(f"127.0.0.1:{port}")
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    assert scrape(port)[0] == 200
    assert stage.age(time.monotonic()) < 5
    for each in silent:
        each.close()


def test_a_socket_file_is_for_its_owner_and_takes_the_place_of_a_dead_one(tmp_path, serve):
    path = tmp_path / "m.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    stage = serve(f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        caller.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert caller.recv(15) == b"HTTP/1.1 200 OK"
    stage.stop()
    assert stage.join(5)
    assert not path.exists()


def test_a_port_that_is_taken_is_named_with_its_key(serve):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        stage = serve(f"127.0.0.1:{taken.getsockname()[1]}")
        assert stage.join(5)
    assert isinstance(stage.failure, EndpointError)
    assert "metrics.listen" in str(stage.failure)


def test_what_other_machines_reach_is_refused_unless_the_configuration_insists():
    for listen in ("0.0.0.0:9464", "192.168.1.5:9464", "[::]:9464"):
        text = f'[metrics]\nlisten = "{listen}"'
        with pytest.raises(ConfigError, match=r"metrics\.expose"):
            parse(text.encode(), "x")
        assert parse(f"{text}\nexpose = true".encode(), "x").metrics.listen == listen
    for listen in ("", "127.0.0.1:9464", "[::1]:9464", "unix:/run/x.sock"):
        parse(f'[metrics]\nlisten = "{listen}"'.encode(), "x")
    for listen in (
        "localhost",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:99999",
        "999.0.0.1:80",
        "http://127.0.0.1:1",
    ):
        with pytest.raises(ConfigError, match="metrics"):
            parse(f'[metrics]\nlisten = "{listen}"'.encode(), "x")
