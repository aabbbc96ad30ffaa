"""A stage runs in its own thread, ends when asked, and keeps what broke it for the supervisor."""

from agent.stage import Stage


class Counting(Stage):
    def work(self) -> None:
        while not self.stopping.wait(0.01):
            self.beat()


class Broken(Stage):
    def work(self) -> None:
        raise OSError("the plug was pulled")


def test_a_stage_beats_until_it_is_told_to_stop():
    stage = Counting("counting")
    assert not stage.alive
    assert stage.beaten is None
    stage.start()
    assert stage.alive
    assert not stage.join(0.1)
    stage.stop()
    assert stage.join(5)
    assert stage.beaten > stage.started
    assert stage.ended
    assert stage.failure is None


def test_a_failure_is_kept_and_told(caplog):
    stage = Broken("broken")
    stage.start()
    assert stage.join(5)
    assert str(stage.failure) == "the plug was pulled"
    assert "stage broken failed" in caplog.text


def test_a_stage_that_never_started_has_ended():
    stage = Counting("idle")
    stage.stop()
    assert stage.join(0)
