"""``cabinsense calibrate threshold``: the cosine from which a face is given a name, from data."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands import measuring
from agent.commands.config import FileOption
from agent.commands.measuring import JsonOption, PackOption

if TYPE_CHECKING:
    from rich.table import Table

    from agent.config import Config
    from calibration.openset import Looks
    from calibration.threshold import ThresholdReport
    from engines.pack import Manifest


def threshold(
    root: Annotated[
        Path | None, typer.Option(help="Folder with a folder of photographs for each person.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="With --root: take the photographs of this list, as LFW writes it.")
    ] = None,
    gallery: Annotated[
        bool, typer.Option("--gallery", help="Take the samples of the gallery in place of photographs.")
    ] = False,
    far: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="Share of strangers' searches that may name somebody.")
    ] = 0.001,
    samples: Annotated[
        int, typer.Option(min=1, max=100, help="Photographs enrolled of a person, with --root.")
    ] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do not store it.")] = False,
    as_json: JsonOption = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write a picture: ROC and distribution of scores.")
    ] = None,
    pack: PackOption = None,
    config: FileOption = None,
) -> None:
    """Choose the threshold from data, and store it with the gallery.

    A threshold is chosen for galleries of every size that the data can say
    something about: the more people are enrolled, the more chances has a
    stranger to look like one of them. The agent takes the one for as many
    people as are enrolled.
    """
    import msgspec

    from agent import upkeep
    from agent.gallery.templates import aggregate
    from calibration import threshold as protocol

    measuring.check_plot(plot)
    if gallery == (root is not None) or (pairs is not None and root is None):
        raise typer.BadParameter("name photographs with --root (and --pairs), or say --gallery")
    if root is None:
        settings, manifest, looks = _from_gallery(pack, config)
    else:
        settings, manifest, looks = _from_photographs(root, pairs, pack, config)
    with measuring.bars() as tell:
        steps, behind = protocol.calibrate(
            looks,
            None if gallery else samples,
            far,
            aggregate(settings.gallery),
            settings.identity.margin,
            tell,
        )
    report = protocol.ThresholdReport(
        source="the gallery" if root is None else root.absolute().name,
        people=len(looks.names),
        looks=len(looks.samples),
        undetected=looks.undetected,
        images=None if gallery else samples,
        far=far,
        template=settings.gallery.template,
        margin=settings.identity.margin,
        enrolled=_enrolled(settings, manifest.digest),
        steps=steps,
    )
    if plot is not None:
        from calibration import plots

        title = f"Threshold for {100 * far:g} % of strangers' searches, pack {manifest.name}"
        plots.threshold(steps, behind, report.step.people, title, plot)
    if not dry_run:
        with upkeep.changing(settings) as opened:
            opened.store_calibration(report.calibration(manifest.digest))
    if as_json:
        typer.echo(msgspec.json.encode(report))
        return
    measuring.show(_table(report))
    if report.enrolled > report.step.people:
        typer.echo(
            f"{report.enrolled} people are enrolled, and the data say nothing about more than {report.step.people}: "
            "strangers will be named more often than asked for",
            err=True,
        )
    if settings.identity.threshold is not None:
        typer.echo(
            f"identity.threshold = {settings.identity.threshold:g} stands in the configuration and goes before it",
            err=True,
        )
    typer.echo("not stored" if dry_run else f"stored in {settings.gallery_path}")


def _from_gallery(pack: Path | None, config: Path | None) -> "tuple[Config, Manifest, Looks]":
    """The samples of the gallery that the pack has made."""
    from agent import upkeep
    from agent.config import load
    from calibration.openset import labelled
    from engines.pack import verify

    settings = load(config)
    manifest = verify(pack or settings.pack_path).manifest
    with upkeep.opened(settings, readonly=True) as gallery:
        return settings, manifest, labelled(gallery.labelled_samples(manifest.digest))


def _from_photographs(
    root: Path, pairs: Path | None, pack: Path | None, config: Path | None
) -> "tuple[Config, Manifest, Looks]":
    """Photographs, looked at."""
    from agent.perception.chain import FaceReader
    from calibration import lfw

    photos = lfw.all_photographs(root) if pairs is None else lfw.photographs(lfw.read_pairs(pairs))
    lfw.check_photographs(root, photos)
    settings, networks = measuring.load(pack, config)
    reader = FaceReader(networks, settings, time.perf_counter)
    looks = lfw.labelled_looks(
        measuring.progress(lfw.looks(reader, root, photos), "photographs", len(photos))
    )
    networks.close()
    return settings, networks.manifest, looks


def _enrolled(settings: "Config", pack: str) -> int:
    """How many people of the gallery can be recognised with a pack."""
    from agent import upkeep

    if not settings.gallery_path.exists():
        return 0
    with upkeep.opened(settings, readonly=True) as gallery:
        return len({name for name, _ in gallery.labelled_samples(pack)})


def _table(report: "ThresholdReport") -> "Table":
    from rich.table import Table

    table = Table(
        "people enrolled", "threshold", "strangers named", "recognised (95 % interval)", "equal error"
    )
    table.title_justify = "left"
    table.title = (
        f"{report.looks} looks at {report.people} people of {report.source}; templates: {report.template}, margin "
        f"{report.margin:g}\n%, of searches; the threshold is the least that names at most {100 * report.far:g} % of "
        "strangers"
    )
    for step in report.steps:
        low, high = step.tar_interval
        now = " (now)" if step == report.step else ""
        table.add_row(
            f"{step.people}{now}",
            f"{step.threshold:.4f}",
            f"{100 * step.far:.3f}",
            f"{100 * step.tar:.1f} ({100 * low:.1f} to {100 * high:.1f})",
            f"{100 * step.eer:.2f}",
        )
    return table
