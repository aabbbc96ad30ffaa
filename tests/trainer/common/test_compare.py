"""Variants of a run over seeds become a table, however often the comparison is cut off."""

import sys

import pytest
from typer.testing import CliRunner

import trainer.tasks
from trainer import compare
from trainer.common import loop
from trainer.common.checkpoint import CheckpointError
from trainer.common.settings import ConfigError, load_settings

FILE = """
task = "tiny"
seeds = [1, 2, 3]
figures = ["accuracy", "loss"]
[settings]
steps = 40
interval = 10
[variants.plain]
[variants."hardly any rate".settings]
learning_rate = 1e-9
"""


class PowerCutError(Exception):
    """The run is over in the middle of a step."""


def quiet(what, count, total):
    pass


@pytest.fixture
def comparison(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(trainer.tasks.TASKS, "tiny", "noise told apart")
    monkeypatch.setitem(sys.modules, "trainer.tasks.tiny", tiny)
    file = tmp_path / "comparison.toml"
    file.write_text(FILE)
    return load_settings(compare.Comparison, file, [])


def test_the_table_tells_what_helps(comparison, tmp_path):
    *_, results = compare.compare(comparison, tmp_path / "out", quiet)
    head, plain, still = results.rows()
    assert head == ["variant", "runs", "accuracy", "loss", "accuracy less plain's"]
    assert (plain[:2], plain[-1], still[:2]) == (["plain", "3"], "", ["hardly any rate", "3"])
    accuracy, deviation = map(float, plain[2].split(" ± "))
    reached = [
        loop.read_history(tmp_path / "out" / "plain" / str(seed))[-1]["accuracy"] for seed in (1, 2, 3)
    ]
    assert accuracy == pytest.approx(sum(reached) / 3, abs=1e-4)
    assert deviation == pytest.approx(
        (sum((each - sum(reached) / 3) ** 2 for each in reached) / 2) ** 0.5, abs=1e-4
    )
    assert float(still[-1].split(" ± ")[0]) < -0.1  # who does not learn is worse
    table = (tmp_path / "out" / "table.md").read_text()
    assert table == compare.markdown(results.rows())
    assert table.startswith("| variant | runs | accuracy | loss | accuracy less plain's |\n| --- | --- |")
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 5000


def test_seeds_come_in_turn_so_that_a_table_is_fair_before_it_is_whole(comparison, tmp_path):
    grown = [
        {name: len(r.of(name, 0)) for name in comparison.variants}
        for r in compare.compare(comparison, tmp_path, quiet)
    ]
    assert [tuple(each.values()) for each in grown] == [(1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)]


def test_a_comparison_cut_off_goes_on_and_does_nothing_twice(comparison, tmp_path):
    out, file = tmp_path / "out", tmp_path / "comparison.toml"
    steps = []

    def cut(what, count, total):
        steps.append(what)
        if len(steps) == 95:  # the first run of the second seed has a checkpoint, and five steps more
            raise PowerCutError

    with pytest.raises(PowerCutError):
        list(compare.compare(load_settings(compare.Comparison, file, ["seeds=[1,2]"]), out, cut))
    assert f"{out / 'plain' / '2'}:" in steps[-1]
    assert len(loop.read_history(out / "plain" / "2")) == 1
    first = {path: path.stat().st_mtime_ns for path in out.glob("*/1/checkpoint.npz")}
    assert len(first) == 2
    finished = CliRunner().invoke(compare.app, [str(file), "--out", str(out), "--set", "seeds=[1,2]"])
    assert finished.exit_code == 0, finished.output
    assert "hardly any rate" in finished.output
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert [line["interval"] for line in loop.read_history(out / "plain" / "2")] == [1, 2, 3, 4]
    table = (out / "table.md").read_text().splitlines()
    assert [row.split(" | ")[1] for row in table[2:]] == ["2", "2"]


def test_runs_of_another_comparison_are_not_taken_for_its_own(comparison, tmp_path):
    next(compare.compare(comparison, tmp_path, quiet))
    file = tmp_path / "comparison.toml"
    other = load_settings(compare.Comparison, file, ["settings.batch=8"])
    with pytest.raises(CheckpointError, match="made with another config"):
        next(compare.compare(other, tmp_path, quiet))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("task=alchemy", "there is no task 'alchemy'"),
        ('figures=["beauty"]', "a run has no figure 'beauty'; it has interval, loss"),
        ("settings.rate=1", "rate"),
        ("variants={one={}}", "variants"),
        ('variants={"../one"={},two={}}', "variants"),
    ],
)
def test_what_is_wrong_with_a_comparison_is_told(comparison, tmp_path, override, told):
    with pytest.raises(ConfigError, match=told):
        next(
            compare.compare(
                load_settings(compare.Comparison, tmp_path / "comparison.toml", [override]), tmp_path, quiet
            )
        )
