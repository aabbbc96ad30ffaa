"""``cabinsense evaluate``: measure a pack on public data sets."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from agent.commands.config import FileOption
from agent.commands.evaluate_people import identification, quality
from agent.commands.evaluate_stream import stream
from agent.commands.measuring import JsonOption, PackOption, check_plot, load, progress, show

if TYPE_CHECKING:
    from rich.table import Table

    from calibration.emotion import EmotionReport
    from calibration.verification import Decision, Verification

app = typer.Typer(no_args_is_help=True, help="Measure a pack on public data sets.")
app.command()(identification)
app.command()(quality)
app.command()(stream)


@app.command()
def verification(
    root: Annotated[Path, typer.Option(help="Folder with a folder for each person, as LFW has it.")],
    pairs: Annotated[Path, typer.Option(help="List of pairs as LFW writes it (pairs.txt).")],
    as_json: JsonOption = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write a picture: ROC and distribution of scores.")
    ] = None,
    pack: PackOption = None,
    config: FileOption = None,
) -> None:
    """Measure face verification on LFW's view 2, through the whole chain: detect, align, embed.

    Of several faces in a photograph the one nearest its centre is taken, as
    LFW is laid out. A photograph without a face is a failure of its pairs:
    a genuine one is not accepted, and for accuracy both kinds are wrong.

    The threshold for FAR 0.001 is chosen on all pairs of different people in
    the first half of the folds, and tested on the second half. Of the listed
    pairs alone, one or two would decide it.
    """
    import msgspec

    from agent.perception.chain import FaceReader
    from calibration import lfw
    from calibration import verification as protocol

    check_plot(plot)
    listed = lfw.read_pairs(pairs)
    photos = lfw.photographs(listed)
    lfw.check_photographs(root, photos)
    settings, networks = load(pack, config)
    reader = FaceReader(networks, settings, time.perf_counter)
    looks = progress(lfw.looks(reader, root, photos), "photographs", len(photos))
    embeddings = {photo: None if look is None else look.embedding for photo, look in looks}
    networks.close()
    scored = protocol.score(listed, embeddings)
    report = protocol.report(listed, embeddings, scored, networks.manifest.face.threshold)
    if plot is not None:
        from calibration import plots

        plots.verification(scored, report, f"Verification, pack {networks.manifest.name}", plot)
    if as_json:
        typer.echo(msgspec.json.encode(report))
    else:
        show(_verification_table(report))


@app.command()
def emotion(
    npz: Annotated[Path, typer.Option(help="FER2013 as an .npz file with arrays SPLIT_x and SPLIT_y.")],
    split: Annotated[
        Literal["test", "validation"],
        typer.Option(help="The challenge's private test, to report, or its public test, to choose by."),
    ] = "test",
    as_json: JsonOption = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write a picture: the confusion matrix.")
    ] = None,
    pack: PackOption = None,
    config: FileOption = None,
) -> None:
    """Measure expressions on FER2013, through the pack's face network.

    FER2013's images are tight crops of faces already: nothing is detected,
    each is enlarged to the network's chip.
    """
    import msgspec
    import numpy as np

    from calibration import emotion as protocol
    from calibration.fer2013 import read_split

    check_plot(plot)
    images, true = read_split(npz, split)
    _, networks = load(pack, config)
    predicted = list(progress(protocol.predict(networks, images), "images", len(images)))
    networks.close()
    report = protocol.report(true, np.array(predicted, np.int64))
    if plot is not None:
        from calibration import plots

        title = f"FER2013 {split}, pack {networks.manifest.name}: {100 * report.accuracy:.2f} %"
        plots.confusion(np.array(report.confusion), report.labels, title, plot)
    if as_json:
        typer.echo(msgspec.json.encode(report))
    else:
        show(_emotion_table(report))


def _verification_table(report: "Verification") -> "Table":
    from rich.table import Table

    from calibration.verification import DECISION_FAR

    def rates(found: "Decision") -> str:
        return f"FAR {100 * found.far:.3f} % (listed {100 * found.listed_far:.3f} %), TAR {100 * found.tar:.2f} %"

    table = Table("figure", "value", title="Face verification", title_justify="left")
    table.add_row(
        "accuracy over the folds", f"{100 * report.accuracy:.2f} ± {100 * report.accuracy_std:.2f} %"
    )
    for far, tar in report.tar_at_far.items():
        low, high = report.tar_at_far_interval[far]
        table.add_row(
            f"TAR at FAR {far}", f"{100 * tar:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f})"
        )
    table.add_section()
    table.add_row(f"threshold for FAR {DECISION_FAR:g}", f"{report.threshold:.4f}, chosen on the first half")
    table.add_row("  on the first half", rates(report.chosen_on))
    table.add_row("  on the second half", rates(report.tested_on))
    table.add_row(f"the pack's, {report.pack_tested_on.threshold:g}", rates(report.pack_tested_on))
    table.add_section()
    table.add_row("pairs", str(report.pairs))
    table.add_row("  without a score", str(report.undetected_pairs))
    table.add_row("photographs without a face", str(report.undetected))
    return table


def _emotion_table(report: "EmotionReport") -> "Table":
    from rich import box
    from rich.table import Table

    title = (
        f"accuracy {100 * report.accuracy:.2f} %, balanced {100 * report.balanced_accuracy:.2f} %, "
        f"{report.samples} images\nrows: the true expression, columns: the named one; recall and precision in %"
    )
    table = Table("", title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True)
    for heading in (*report.labels, "recall"):
        table.add_column(heading, justify="right")
    each = [report.per_class[label] for label in report.labels]
    for label, counts, rates in zip(report.labels, report.confusion, each, strict=True):
        table.add_row(label, *map(str, counts), f"{100 * rates.recall:.1f}")
    table.add_section()
    table.add_row("precision", *(f"{100 * rates.precision:.1f}" for rates in each))
    return table
