"""What the daemon does when the engine asked for cannot run: it stops and says why, or goes on and says so."""

import onnxruntime
import pytest


@pytest.fixture(autouse=True)
def without_cuda():
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime knows CUDA")


def test_the_daemon_does_not_start_on_anything_but_what_was_asked_for(agent, looped_clip):
    agent.configure(looped_clip, more='[engine]\nproviders = ["cuda"]')
    done = agent.run("run", "--no-table")
    assert done.returncode == 1
    assert "error: this ONNX Runtime has no provider cuda, only cpu; install onnxruntime-gpu" in done.stderr
    assert "Traceback" not in done.stderr


def test_health_says_that_another_engine_has_taken_over(daemon, subscribe):
    subscriber = subscribe("health")
    daemon(more='[engine]\nproviders = ["cuda"]\nfallback = true')
    (problem,) = next(event["problems"] for event in subscriber.events(30) if event["problems"])
    assert "as engine.fallback allows" in problem
    assert "no provider cuda" in problem
