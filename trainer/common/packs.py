"""What was trained as the agent takes it: a file, or a pack that is another with this part changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import UNSET

from engines.pack import MANIFEST, Manifest, Model, Pack, encode_manifest, verify
from engines.sources.storage import locked, new_folder, write_file
from trainer.common.proof import ExportError

Part = Literal["detector", "face", "landmarks"]
"""What can be changed, by its name in the manifest."""

Write = Callable[[Path], Model]
"""Writes the file it is given, whose folder exists; what a manifest says of it."""


def export(target: Path, name: str, base: Pack, part: Part, write: Write) -> None:
    """Write ``target``: if it ends in ``.onnx`` the part alone, otherwise a pack; see ``pack_with``.

    Raises:
        ExportError: it cannot be written.
        UserError: what ``write`` raises.
    """
    if target.suffix != ".onnx":
        pack_with(target, name, base, part, write)
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target)
    except OSError as error:
        raise _refused(target, error) from error


def pack_with(target: Path, name: str, base: Pack, part: Part, write: Write) -> Pack:
    """A pack in the folder ``target``: ``base`` with one part changed.

    A norm bank is made for one face network: with another the pack has none, and cannot adapt.

    Args:
        target: its place; a pack that is there is replaced once the new one is whole.
        name: of the pack.
        base: verified.
        part: that is another.
        write: makes it.

    Raises:
        ExportError: it cannot be written.
        UserError: what ``write`` raises.
    """
    bank = UNSET if part == "face" else base.manifest.adaptation
    parts = msgspec.structs.asdict(msgspec.structs.replace(base.manifest, adaptation=bank))
    kept = [each.file for field, each in parts.items() if isinstance(each, Model) and field != part]
    file = f"{part}.onnx" if f"{part}.onnx" not in kept else f"own-{part}.onnx"
    try:
        with locked(target.with_name(f".{target.name}.lock")), new_folder(target) as folder:
            for each in kept:
                write_file(folder / each, (base.path / each).read_bytes())
            parts |= {"name": name, "recipe": "", part: write(folder / file)}
            write_file(folder / MANIFEST, encode_manifest(Manifest(**parts)))
    except OSError as error:
        raise _refused(target, error) from error
    return verify(target)


def _refused(target: Path, error: OSError) -> ExportError:
    return ExportError(
        f"{error.filename or target}: {error.strerror}; make room or rights there, or choose another folder"
    )
