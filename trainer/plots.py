"""Pictures of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

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


def confusion_matrix(confusion: NDArray[np.int64], labels: Sequence[str], title: str, path: Path) -> None:
    """A confusion matrix [true, predicted] in per cent of each true class, as a picture."""
    share = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(6, 5.5), layout="constrained")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    axes.set_xticks(range(len(labels)), labels, rotation=45)
    axes.set_yticks(range(len(labels)), labels)
    for (row, column), value in np.ndenumerate(share):
        axes.text(
            column, row, f"{value:.0f}", ha="center", va="center", color="white" if value > 55 else "black"
        )
    figure.savefig(path, dpi=120)
    plt.close(figure)
