"""``cabinsense train``: train the networks of a pack."""

import typer


def train(context: typer.Context) -> None:
    """Train the networks of a pack (needs PyTorch). `cabinsense train --help` lists the tasks."""
    from trainer.__main__ import app

    app(context.args, prog_name="cabinsense train")
