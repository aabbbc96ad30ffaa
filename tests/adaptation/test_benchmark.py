"""What adapting costs can be measured: both sides on the same pictures, in turn."""

import io
import sys
from pathlib import Path

from rich.console import Console

from agent.adaptation.benchmark import compare
from agent.commands.bench import _tell_comparison
from agent.config import AdaptationSettings, Config, Quality
from agent.daemon import Daemon
from agent.samples import clip
from agent.stages.adaptation import AdaptationStage

SCALED = (sys.executable, str(Path(__file__).with_name("scaled_worker.py")))


class WithScaledWorker(Daemon):
    def _adaptation(self, _) -> AdaptationStage:
        return AdaptationStage(self._pack, self._live, self._outbox, self._camera_health, ["bench"], SCALED)


def test_both_sides_are_measured_in_turn(pack, samples, capsys):
    every_face = Quality(
        min_eye_distance=0, min_share=0, min_sharpness=0, min_contrast=0, max_yaw=90, max_pitch=90
    )
    settings = AdaptationSettings(every_s=0.1, duty=1.0)
    config = Config(pack=str(pack.path), quality=every_face, adaptation=settings)
    quiet = Console(file=io.StringIO())
    report = compare(config, "statistics", str(clip()), 30, 2, quiet, WithScaledWorker)
    assert (report.off.frames, report.on.frames) == (60, 60)
    assert len(report.rounds) == 2
    assert report.decisions["better"] >= report.swaps - report.decisions.get("reset:settings", 0) > 0
    assert 0 < report.off.p50 <= report.off.p99
    _tell_comparison(report, as_json=False)
    assert "changes of engines" in capsys.readouterr().out
