"""``cabinsense calibrate conditions``: the norm bank that adaptation mixes."""

from pathlib import Path
from typing import Annotated

import typer

from agent.commands import measuring
from agent.commands.config import FileOption
from agent.commands.measuring import PackOption


def conditions(
    expressions: Annotated[Path, typer.Option(help="fer2013.npz; its training split is used.")],
    data: Annotated[Path, typer.Option(help="Folder with a folder of photographs for each person.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the run; conditions that are done there are not trained again.")
    ],
    pairs: Annotated[
        Path | None,
        typer.Option(help="List of pairs, as LFW writes it: only its first half of folds is used."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Norm bank for the same network to go on from; by default from the network as it is."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training, for each condition.")] = 400,
    images: Annotated[int, typer.Option(min=16, help="Most images of FER2013.")] = 12_000,
    faces: Annotated[int, typer.Option(min=16, help="Most photographs.")] = 1800,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Threads.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.")] = 0,
    pack: PackOption = None,
    config: FileOption = None,
) -> None:
    """Train norm parameters for darkness, glare, blur and so on: the norm bank.

    Takes minutes for each condition. Stopped, it goes on with the same command.
    The bank is left in the folder as adaptation.npz; a pack that names it in
    its manifest can adapt while it runs.
    """
    from agent import config as configuration
    from calibration.lfw import read_pairs
    from engines.pack import verify
    from engines.torch_extra import check_torch

    check_torch("training a norm bank")
    from calibration.conditions_run import BANK, make
    from calibration.recipe import Recipe

    recipe = Recipe(seed=seed, threads=threads, images=images, faces=faces, steps=steps)
    verified = verify(pack or configuration.load(config).pack_path)
    listed = read_pairs(pairs) if pairs else []
    with measuring.bars() as tell:
        bank = make(verified, expressions, data, listed, recipe, out, tell, start)
    typer.echo(f"{out / BANK}: {', '.join(bank.conditions[1:])}")
