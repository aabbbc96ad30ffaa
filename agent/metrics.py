"""The figures for Prometheus, from what the daemon knows of itself anyway. No name of a person is among them."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from agent import __version__
from agent.events import AdaptationHealth, HealthEvent
from agent.live import Live
from agent.statistics import FrameTimes

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Exposition:
    """The figures as text, as they are whenever they are asked for."""

    def __init__(self, live: Live, times: FrameTimes) -> None:
        """From the newest health event in ``live`` and the times of frames."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Figures(live, times))
        ProcessCollector(
            registry=self._registry
        )  # memory, processor time and open files, by their usual names

    def text(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self._registry)


class _Figures(Collector):
    def __init__(self, live: Live, times: FrameTimes) -> None:
        self._live = live
        self._times = times

    def collect(self) -> Iterator[Metric]:
        """All figures; before the first health event only those of frames."""
        yield from _of_frames(self._times)
        if self._live.health is not None:
            yield from _of_health(self._live.health)


def _of_frames(times: FrameTimes) -> Iterator[Metric]:
    counts, seconds = times.histogram()
    yield HistogramMetricFamily(
        "cabinsense_frame_seconds",
        "Time that a frame took, from its pixels to its reading.",
        buckets=list(counts.items()),
        sum_value=seconds,
    )
    yield CounterMetricFamily(
        "cabinsense_frames_missed", "Frames that took longer than budget.frame_ms.", times.missed
    )
    yield GaugeMetricFamily(
        "cabinsense_rung",
        "What was left out of the newest frame to keep the budget; 0 is nothing.",
        times.rung,
    )


def _of_health(health: HealthEvent) -> Iterator[Metric]:
    yield InfoMetricFamily("cabinsense", "What is running.", {"version": __version__, "pack": health.pack})
    cameras = {
        "cabinsense_frames": (CounterMetricFamily, "Frames captured.", "frames"),
        "cabinsense_frames_dropped": (
            CounterMetricFamily,
            "Frames replaced by a newer one before they were looked at.",
            "dropped",
        ),
        "cabinsense_camera_reopened": (CounterMetricFamily, "Times the camera was opened again.", "reopened"),
    }
    for name, (kind, meaning, field) in cameras.items():
        family = kind(name, meaning, labels=["camera"])
        for camera in health.cameras:
            family.add_metric([camera.name], getattr(camera, field))
        yield family
    up = GaugeMetricFamily("cabinsense_camera_up", "Whether the camera delivers frames.", labels=["camera"])
    for camera in health.cameras:
        up.add_metric([camera.name], camera.state == "open")
    yield up
    clear = GaugeMetricFamily(
        "cabinsense_camera_clear",
        "Whether the camera sees: its lens is free and its image moves.",
        labels=["camera"],
    )
    for camera in health.cameras:
        clear.add_metric([camera.name], camera.view == "clear")
    yield clear

    ages = GaugeMetricFamily(
        "cabinsense_stage_heartbeat_age_seconds", "Since the last sign of life of a stage.", labels=["stage"]
    )
    restarts = CounterMetricFamily(
        "cabinsense_stage_restarts", "Times a stage hung or died and was started anew.", labels=["stage"]
    )
    for stage, age in health.stages.items():
        ages.add_metric([stage], age)
        restarts.add_metric([stage], health.restarts.get(stage, 0))
    yield ages
    yield restarts

    yield CounterMetricFamily(
        "cabinsense_messages_dropped",
        "Messages that fell out before they could be published.",
        health.dropped,
    )
    yield CounterMetricFamily(
        "cabinsense_subscriber_stalls",
        "Times a subscriber was so slow that it began to miss messages.",
        health.stalled,
    )
    if health.budget_ms is not None:
        yield GaugeMetricFamily(
            "cabinsense_budget_seconds", "Time that frames are planned with now.", health.budget_ms / 1e3
        )
    if health.adaptation is not None:
        yield from _of_adaptation(health.adaptation)
    heat = GaugeMetricFamily("cabinsense_temperature_celsius", "Of each thermal zone.", labels=["zone"])
    for zone, celsius in health.celsius.items():
        heat.add_metric([zone], celsius)
    yield heat
    yield GaugeMetricFamily("cabinsense_gallery_people", "People in the gallery.", health.people)
    yield GaugeMetricFamily(
        "cabinsense_problems", "Problems that a health event names.", len(health.problems)
    )


def _of_adaptation(adaptation: AdaptationHealth) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "cabinsense_adapted", "Whether an adapted face network runs.", adaptation.state == "adapted"
    )
    yield GaugeMetricFamily(
        "cabinsense_adaptation_worker_up", "Whether the worker has begun its work.", adaptation.ready
    )
    yield CounterMetricFamily(
        "cabinsense_adaptation_worker_restarts",
        "Workers started in place of another.",
        adaptation.restarts,
    )
    yield CounterMetricFamily("cabinsense_adaptation_chips", "Chips given to a worker.", adaptation.chips)
    decisions = CounterMetricFamily(
        "cabinsense_adaptation_decisions", "What became of the adaptation.", labels=["outcome"]
    )
    for outcome in ("accepted", "refused", "resets"):
        decisions.add_metric([outcome.removesuffix("s")], getattr(adaptation, outcome))
    yield decisions
