"""Pictures of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # no display is needed
from matplotlib import pyplot as plt


def loss_curve(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Training loss and validation accuracy over the epochs, as a picture."""
    figure, left = plt.subplots(figsize=(7, 4), layout="constrained")
    epochs = [line["epoch"] for line in history]
    left.plot(epochs, [line["loss"] for line in history], color="tab:blue")
    left.set(xlabel="epoch", ylabel="training loss (nats)")
    right = left.twinx()
    right.plot(epochs, [100 * line["validation_accuracy"] for line in history], color="tab:orange")
    right.set(ylabel="validation accuracy (%)")
    figure.savefig(path, dpi=120)
    plt.close(figure)
