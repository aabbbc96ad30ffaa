"""``cabinsense evaluate identification`` and ``quality``: who is recognised among many people, and in poor pictures."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands.config import FileOption
from agent.commands.measuring import JsonOption, PackOption, check_plot, load, progress, show

if TYPE_CHECKING:
    from rich.table import Table

    from calibration.identification import HalfReport, Report
    from calibration.quality import QualityReport, Rates
    from calibration.tracks import TrackReport

RootOption = Annotated[Path, typer.Option(help="Folder with a folder of photographs for each person.")]
PeopleOption = Annotated[int, typer.Option(min=2, max=100_000, help="People enrolled in the large gallery.")]


def identification(
    root: RootOption,
    people: PeopleOption = 500,
    far: Annotated[
        float,
        typer.Option(min=1e-6, max=0.5, help="Share of strangers' looks that may be named, for the tracks."),
    ] = 0.001,
    as_json: JsonOption = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write a picture: misses over false names.")
    ] = None,
    pack: PackOption = None,
    config: FileOption = None,
) -> None:
    """Compare the ways of making templates, and count strangers who are given a name.

    On one half of the people the best way and the threshold are chosen, on
    the other they are measured: with 1, 3 and 5 photographs enrolled, in a
    large gallery with strangers, and on tracks. Embeddings stay in memory.
    """
    import msgspec

    from agent.perception.chain import FaceReader
    from agent.samples import SampleError, clip
    from calibration import identification as protocol
    from calibration import lfw, tracks
    from calibration.halves import halves

    check_plot(plot)
    photos = lfw.all_photographs(root)
    settings, networks = load(pack, config)
    method = settings.gallery.template
    reader = FaceReader(networks, settings, time.perf_counter)
    seen = progress(lfw.looks(reader, root, photos), "photographs", len(photos))
    looks = lfw.labelled_looks(seen)
    first, second = halves(looks, people, settings.identity.margin)
    shown = tracks.photographs(second)
    followed = tracks.follow(reader, root, [photos[look] for look in shown])
    tracked = list(progress(followed, "tracks", len(shown)))
    drives = []
    for few, splits in tracks.galleries(people):
        one, other = halves(looks, few, settings.identity.margin, splits)
        threshold = one.searches(method).threshold(far)
        try:
            watched = tracks.watch_clip(networks, settings, clip(), other, method, threshold)
        except SampleError as error:
            typer.echo(f"without the sample clip: {error}", err=True)
            watched = (0, 0)
        drives.append(
            tracks.report(other, shown, tracked, method, far, threshold, settings.identity, watched)
        )
    networks.close()
    found = protocol.report(first)
    report = protocol.Report(
        photographs=len(photos),
        undetected=looks.undetected,
        margin=settings.identity.margin,
        used=method,
        best=protocol.choose(found),
        chosen_on=found,
        tested_on=protocol.report(second),
        tracks=drives,
    )
    if plot is not None:
        from calibration import plots

        curves = {name: second.searches(name).curve() for name in protocol.METHODS}
        title = f"{report.tested_on.enrolled} people enrolled, pack {networks.manifest.name}"
        plots.identification(curves, report.tested_on.open_set, title, plot)
    if as_json:
        typer.echo(msgspec.json.encode(report))
        return
    show(gallery_table(report))
    show(images_table(report.tested_on))
    for found_tracks in report.tracks:
        show(tracks_table(found_tracks))


def quality(
    root: RootOption,
    pairs: Annotated[Path, typer.Option(help="List of pairs as LFW writes it (pairs.txt).")],
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", help="How pictures are spoiled; give it several times for more."),
    ] = None,
    severity: Annotated[int, typer.Option(min=1, max=5, help="How badly they are spoiled.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of what is random in that.")] = 0,
    people: PeopleOption = 500,
    as_json: JsonOption = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write a picture: recall of each pairing.")
    ] = None,
    pack: PackOption = None,
    config: FileOption = None,
) -> None:
    """Measure what poor pictures cost: good against good, poor against good, poor against poor.

    Photographs are spoiled by defocus, noise, low light, low resolution and
    compression, then found and aligned anew. 1:1 on the listed pairs, 1:N in
    a large gallery. Embeddings stay in memory.
    """
    from functools import partial

    import msgspec

    from agent.perception.chain import FaceReader
    from calibration import lfw
    from calibration import quality as protocol

    check_plot(plot)
    wanted = tuple(kinds or protocol.KINDS)
    unknown = [kind for kind in wanted if kind not in protocol.POSSIBLE]
    if unknown:
        raise typer.BadParameter(f"--kind {unknown[0]}: there are {', '.join(protocol.POSSIBLE)}")
    listed = lfw.read_pairs(pairs)
    photos = lfw.photographs(listed)
    lfw.check_photographs(root, photos)
    settings, networks = load(pack, config)
    reader = FaceReader(networks, settings, time.perf_counter)
    seen = progress(lfw.looks(reader, root, photos), "good pictures", len(photos))
    bench = protocol.Bench(
        listed, photos, lfw.labelled_looks(seen), people, settings.gallery.template, settings.identity.margin
    )
    rows = [bench.good_row()]
    for kind in wanted:
        alter = partial(protocol.spoil, kind, severity, seed)
        seen = progress(lfw.looks(reader, root, photos, alter), kind, len(photos))
        rows += bench.rows(kind, lfw.labelled_looks(seen))
    networks.close()
    report = bench.report(severity, seed, rows)
    if plot is not None:
        from calibration import plots

        plots.quality(report, f"Severity {severity}, pack {networks.manifest.name}", plot)
    if as_json:
        typer.echo(msgspec.json.encode(report))
    else:
        show(quality_table(report))


def _per_cent(share: float, interval: tuple[float, float] | None = None, digits: int = 1) -> str:
    shown = f"{100 * share:.{digits}f}"
    return (
        f"{shown} ({100 * interval[0]:.{digits}f} to {100 * interval[1]:.{digits}f})" if interval else shown
    )


def gallery_table(report: "Report") -> "Table":
    """What each method reaches in the large gallery."""
    from rich.table import Table

    found = report.tested_on
    title = (
        f"{found.enrolled} people enrolled, {found.in_full} of them with three photographs, the others with fewer; "
        f"{found.mated} searches of theirs, {found.strangers} of strangers\n% named rightly (95 % interval), where so "
        "many strangers' searches name somebody"
    )
    table = Table(
        "templates", "FPIR 10 %", "FPIR 1 %", "FPIR 0.1 %", "better than the mean", "another's name at 1 %"
    )
    table.title, table.title_justify = title, "left"
    for row in found.open_set:
        notes = [
            word for word, said in (("in use", report.used), ("best", report.best)) if said == row.method
        ]
        table.add_row(
            f"{row.method} ({', '.join(notes)})" if notes else row.method,
            _per_cent(row.dir["0.1"]),
            _per_cent(row.dir["0.01"], row.dir_interval),
            _per_cent(row.dir["0.001"]),
            _per_cent(row.gain, row.gain_interval),
            _per_cent(row.misnamed, digits=2),
        )
    return table


def images_table(found: "HalfReport") -> "Table":
    """What each method reaches with so many photographs of each person."""
    from rich.table import Table

    title = (
        f"{found.many} people of whom there are five photographs or more, all others strangers\n"
        "% accepted or named rightly (95 % interval)"
    )
    table = Table("enrolled", "templates", "a person", "1:1, FAR 0.1 %", "1:1, FAR 1 %", "1:N, FPIR 1 %")
    table.title, table.title_justify = title, "left"
    for row in found.by_images:
        table.add_row(
            f"{row.images}, one of somebody else" if row.foreign else str(row.images),
            row.method,
            f"{row.templates:.2f}",
            _per_cent(row.tar["0.001"], row.tar_interval),
            _per_cent(row.tar["0.01"]),
            _per_cent(row.dir["0.01"], row.dir_interval),
            end_section=row == found.by_images[-1] or row.method == "clusters",
        )
    return table


def tracks_table(found: "TrackReport") -> "Table":
    """What became of the tracks."""
    from rich.table import Table

    table = Table("tracks", "value", title_justify="left")
    table.title = (
        f"Tracks, {found.people} people enrolled; threshold {found.threshold:.4f}, chosen so that "
        f"{100 * found.far:g} % of strangers' searches name somebody"
    )
    table.add_row("of strangers", f"{found.strangers}, in {found.galleries} galleries")
    table.add_row("  somebody named", f"{_per_cent(found.named, found.named_interval, 2)} %")
    table.add_row("of enrolled people", str(found.known))
    table.add_row("  named rightly", f"{_per_cent(found.recognised)} %")
    table.add_row("  named as another", f"{_per_cent(found.misnamed, digits=2)} %")
    table.add_row("of the sample clip", f"{found.clip}, {found.clip_named} of them named")
    return table


def quality_table(report: "QualityReport") -> "Table":
    """What each pairing reaches."""
    from rich.table import Table

    from calibration.quality import FAR

    def own(rates: "Rates") -> str:
        return _per_cent(rates.recall, rates.interval)

    def fixed(rates: "Rates") -> str:
        return f"{_per_cent(rates.fixed_recall)}, false {_per_cent(rates.fixed_far)}"

    words = {"high_high": "good, good", "low_high": "poor, good", "low_low": "poor, poor"}
    rate = f"{100 * FAR:g} %"
    table = Table(
        *("pictures", "spoiled by", "no face", "refused"),
        *(f"1:1, FAR {rate}", "as it is set", f"1:N, FPIR {rate}", "as it is set"),
        title_justify="left",
    )
    table.title = (
        f"Severity {report.severity}; {report.pairs} pairs; {report.enrolled} people enrolled, {report.mated} searches "
        f"of theirs, {report.strangers} of strangers\n% recognised (95 % interval); as it is set: at the threshold "
        f"that gives {rate} on good pictures"
    )
    for row in report.rows:
        table.add_row(
            words[row.pairing],
            row.kind,
            _per_cent(row.undetected),
            _per_cent(row.refused),
            own(row.one_to_one),
            fixed(row.one_to_one),
            own(row.one_to_many),
            fixed(row.one_to_many),
            end_section=row.pairing != "low_high",
        )
    return table
