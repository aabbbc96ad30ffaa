"""``python -m trainer.compare FILE.toml``: the same run with some settings changed, over several seeds, and a table.

What helps is told from what does not only beside a run that lacks nothing else, on the same data, with the same budget,
more than once. The file names the task, the settings that all runs share, and the variants:

    task = "recognise"
    seeds = [1, 2, 3]
    figures = ["pair_accuracy", "tar_at_far_0.01"]

    [settings]
    steps = 500

    [variants.softmax.settings]
    head.kind = "softmax"

    [variants.arcface.settings]
    head.kind = "arcface"

    [variants."arcface from simclr"]
    settings = { start = "@before", steps = 250 }
    before = { task = "simclr", settings = { steps = 250 } }

Each run is one of ``loop.train`` in a folder of its own, so a comparison that was stopped goes on with the same
command, and what is finished is not done again. The table grows with each run: all variants of a seed, then the next.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from msgspec import Meta
from rich.table import Table

from engines.errors import UserError
from trainer.common import loop, plots
from trainer.common.distributed import joined
from trainer.common.job import Advance, TrainingError
from trainer.common.run import bars
from trainer.common.settings import ConfigError, Whole, convert, load_settings
from trainer.tasks import TASKS, load

BEFORE = "@before"
"""As the value of a setting: the folder of the run that went before."""
TABLE = "table.md"
PICTURE = "comparison.png"

Name = Annotated[str, Meta(pattern=r"^\w[\w ,.+-]*$", max_length=64)]  # it becomes the name of a folder
Settings = dict[str, Any]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Before(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A run that another one starts from.

    Attributes:
        task: by name.
        settings: beside those of all runs that this task has, too.
    """

    task: str
    settings: Settings = {}


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is different.

    Attributes:
        settings: beside those of all runs.
        before: a run that goes before, with the same seed; a setting whose value is ``BEFORE`` gets its folder.
    """

    settings: Settings = {}
    before: Before | None = None


class Comparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is compared; see the module.

    Attributes:
        task: by name.
        figures: keys of the last line of metrics; the first decides.
        variants: by name; the others are measured against the first.
        seeds: of the runs of each variant.
        settings: of all runs.
    """

    task: str
    figures: Annotated[tuple[str, ...], Meta(min_length=1)]
    variants: Annotated[dict[Name, Variant], Meta(min_length=2)]
    seeds: Annotated[tuple[Whole, ...], Meta(min_length=1)] = (1, 2, 3)
    settings: Settings = {}


@dataclass
class Results:
    """What the runs that are finished have reached.

    Attributes:
        comparison: whose runs they are.
        reached: by variant and seed, the figures in their order.
    """

    comparison: Comparison
    reached: dict[tuple[str, int], Sequence[float]] = field(default_factory=dict)

    def of(self, variant: str, figure: int) -> dict[int, float]:
        """A figure of a variant, by seed."""
        return {seed: found[figure] for (name, seed), found in self.reached.items() if name == variant}

    def rows(self) -> list[list[str]]:
        """The table: variant, runs, figures, and how far the first figure is from the first variant's, seed by seed."""
        first = next(iter(self.comparison.variants))
        reference = self.of(first, 0)
        rows = [["variant", "runs", *self.comparison.figures, f"{self.comparison.figures[0]} less {first}'s"]]
        for name in self.comparison.variants:
            found = self.of(name, 0)
            apart = [value - reference[seed] for seed, value in found.items() if seed in reference]
            figures = [
                spread(list(self.of(name, number).values())) for number in range(len(self.comparison.figures))
            ]
            rows.append([name, str(len(found)), *figures, "" if name == first else spread(apart, "+")])
        return rows


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean ± standard deviation (of a sample: divided by the number less one)."""
    if not values:
        return ""
    mean = f"{statistics.fmean(values):{sign}.4f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table, the first as its head."""
    lines = [f"| {' | '.join(row)} |\n" for row in rows]
    return "".join([lines[0], "| --- " * len(rows[0]) + "|\n", *lines[1:]])


def compare(comparison: Comparison, out: Path, advance: Advance) -> Iterator[Results]:
    """Train what is not trained yet; yields the results behind each run, which are also left in ``out``.

    Raises:
        UserError: a setting is wrong, or the folder holds runs of others.
    """
    for name in (comparison.task, *(v.before.task for v in comparison.variants.values() if v.before)):
        if name not in TASKS:
            raise ConfigError(f"there is no task {name!r}; there are {', '.join(TASKS)}")
    results = Results(comparison)
    for seed in comparison.seeds:
        for name, variant in comparison.variants.items():
            folder = out.absolute() / name / str(seed)
            own = merged(comparison.settings, variant.settings)
            if variant.before is not None:
                earlier, task = folder / "before", load(variant.before.task)
                wanted = task.of(
                    merged(comparison.settings, variant.before.settings)
                ).settings.__struct_fields__
                shared = {key: value for key, value in comparison.settings.items() if key in wanted}
                _train(variant.before.task, merged(shared, variant.before.settings), seed, earlier, advance)
                own = {key: str(earlier) if value == BEFORE else value for key, value in own.items()}
            last = _train(comparison.task, own, seed, folder, advance)
            missing = [figure for figure in comparison.figures if figure not in last]
            if missing:
                raise ConfigError(f"a run has no figure {missing[0]!r}; it has {', '.join(last)}")
            results.reached[name, seed] = [float(last[figure]) for figure in comparison.figures]
            (out / TABLE).write_text(markdown(results.rows()), encoding="utf-8")
            plots.dots(
                {each: list(results.of(each, 0).values()) for each in comparison.variants},
                comparison.figures[0],
                out / PICTURE,
            )
            yield results


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    """``base`` with what ``over`` says otherwise, table by table."""
    both = dict(base)
    for key, value in over.items():
        inner = both.get(key)
        both[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both


def _train(name: str, settings: Settings, seed: int, folder: Path, advance: Advance) -> Mapping[str, Any]:
    """Train, or go on, or see that there is nothing left to do; the last line of metrics."""
    task = load(name).of(settings)
    with joined(settings.get("device", "auto")) as world:
        if world.size > 1:
            raise TrainingError("a comparison runs in one process; start it without torchrun")
        job = task.build(convert(task.settings, {**settings, "seed": seed}), world, advance)
        loop.train(job, folder, lambda what, count, total: advance(f"{folder}: {what}", count, total))
    return loop.read_history(folder)[-1]


@app.command(help=(__doc__ or "").partition("\n")[0])
def main(
    file: Annotated[Path, typer.Argument(help="TOML file: task, settings, variants, seeds")],
    out: Annotated[Path, typer.Option(help="folder of all runs; what is finished there is not done again")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, over the file, such as settings.steps=50")
    ] = None,
) -> None:
    """Compare, and print the table."""
    try:
        comparison = load_settings(Comparison, file, overrides or [])
        with bars(shown=True) as (advance, console):
            for results in compare(comparison, out, advance):
                rows = results.rows()
        table = Table(*rows[0])
        for row in rows[1:]:
            table.add_row(*row)
        console.print(table)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        typer.echo(f"stopped; the same command goes on from {out}", err=True)
        raise typer.Exit(130) from error


if __name__ == "__main__":
    app()
