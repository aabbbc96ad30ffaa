"""ArcFace with its classes spread over the processes: no process holds all centres or all logits.

Partial FC (An et al., Killing Two Birds with One Stone, CVPR 2022): embeddings are small and travel, centres are many
and stay. Each process gathers the embeddings of all and computes the logits of its own classes; what the softmax needs
of the other processes is a few numbers a sample. Optionally only a random share of the classes takes part in a step,
those of the batch always: the paper's answer to time and memory, and to classes that should be one.
"""

import torch
from torch import Tensor, nn
from torch import distributed as dist

from trainer.losses.margin import (
    Identified,
    Margin,
    cosines,
    fresh_centres,
    margin_logits,
    own_class,
    weighted_mean,
)
from trainer.losses.processes import add_parts, gather, largest, place


def shard(classes: int, rank: int, processes: int) -> range:
    """The classes of one process: consecutive, all of them covered once, sizes differing by one at most.

    Raises:
        ValueError: a process would hold no class.
    """
    if classes < processes:
        raise ValueError(
            f"{classes} classes cannot be spread over {processes} processes: use fewer processes"
        )
    return range(classes * rank // processes, classes * (rank + 1) // processes)


def sample_classes(labels: Tensor, classes: int, count: int, generator: torch.Generator | None) -> Tensor:
    """The classes of a shard that take part in a step: those of its samples, filled up with random others.

    Args:
        labels: int64 [n], places in the shard; -1 for samples of other shards.
        classes: size of the shard.
        count: how many classes to take; more where more occur among the labels.
        generator: of random numbers, on the processor; None: PyTorch's own.

    Returns:
        int64, sorted, each class once, on the labels' device.
    """
    order = torch.rand(classes, generator=generator).to(labels.device)
    occurring = torch.unique(labels[labels >= 0])
    order[occurring] = 2.0  # above every random number, so that these are taken first
    return order.topk(min(classes, max(count, len(occurring)))).indices.sort().values


def sharded_margin_loss(
    cosine: Tensor, labels: Tensor, margin: Margin, group: dist.ProcessGroup | None = None
) -> Tensor:
    """Margin softmax's cross-entropy over columns that are spread over processes; every process gets the same number.

    Args:
        cosine: float [n, columns of this process], rows alike in all processes.
        labels: int64 [n], the column of each sample's class, or -1 where another process has it; one process does.
        margin: the settings of this step.
        group: None for all processes.

    Returns:
        float []: mean over the rows; its gradient for ``cosine`` is exact.
    """
    logits = margin_logits(cosine, labels, margin)
    peak = largest(logits.amax(1), group)
    denominator = add_parts((logits - peak[:, None]).exp().sum(1), group)
    target = add_parts(own_class(logits, labels), group)
    own_cosine = add_parts(own_class(cosine.detach(), labels), group)
    return weighted_mean(denominator.log() + peak - target, own_cosine, margin)


@torch.no_grad()
def sharded_without_margin(
    cosine: Tensor, labels: Tensor, scale: float, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and top-1, as ``margin.without_margin`` gives them; arguments as of ``sharded_margin_loss``."""
    peak = largest(cosine.amax(1), group)
    top1 = add_parts(own_class(cosine, labels), group) >= peak
    loss = sharded_margin_loss(cosine, labels, Margin(0.0, scale), group)
    return loss, top1.to(cosine.dtype).mean()


class PartialFC(nn.Module):
    """This process's part of an ArcFace head. Keep it out of DistributedDataParallel: its gradients are whole already.

    Attributes:
        own: the classes whose centres are here.
        centres: float32 [len(own), subcentres, dim].
    """

    def __init__(
        self,
        classes: int,
        dim: int,
        subcentres: int = 1,
        share: float = 1.0,
        group: dist.ProcessGroup | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Make this process's centres.

        Args:
            classes: of all processes together, at least as many as processes.
            dim: length of an embedding.
            subcentres: centres a class.
            share: of this process's classes that take part in a step, above 0, up to 1. An optimiser with momentum
                or weight decay goes on moving those that do not take part.
            group: None for all processes.
            generator: for the first values; seed it differently in each process, or their centres are alike.

        Raises:
            ValueError: too few classes, or a share out of its range.
        """
        super().__init__()
        if not 0.0 < share <= 1.0:
            raise ValueError(f"share {share} is not above 0 and up to 1")
        self._group = group
        rank, self._processes = place(group)
        self.own = shard(classes, rank, self._processes)
        self._count = max(1, round(share * len(self.own)))
        self.centres = fresh_centres(len(self.own), subcentres, dim, generator)

    def forward(
        self, embeddings: Tensor, labels: Tensor, margin: Margin, generator: torch.Generator | None = None
    ) -> Tensor:
        """The mean loss over the samples of all processes, the same float [] in each; all must call.

        Args:
            embeddings: float [n, dim] of this process's samples, of any length; n the same in every process.
            labels: int64 [n], 0..classes - 1 of all processes together.
            margin: the settings of this step.
            generator: draws the classes that take part where ``share`` is below 1.
        """
        return self.identify(embeddings, labels, margin, generator).loss

    def identify(
        self, embeddings: Tensor, labels: Tensor, margin: Margin, generator: torch.Generator | None = None
    ) -> Identified:
        """The loss, and what it is without the margin, among the classes that take part; as ``forward``."""
        # Each process has the gradient of its own columns only; their sum is that of the mean over all samples. The
        # factor is what DistributedDataParallel's average takes away again, see processes.
        everyone = _times(gather(embeddings, self._group), float(self._processes))
        labels = gather(labels, self._group)
        here = (labels >= self.own.start) & (labels < self.own.stop)
        labels = torch.where(here, labels - self.own.start, -1)
        centres: Tensor = self.centres
        if self._count < len(self.own):
            chosen = sample_classes(labels, len(self.own), self._count, generator)
            centres = centres[chosen]
            labels = torch.where(here, torch.searchsorted(chosen, labels.clamp_min(0)), -1)
        cosine = cosines(everyone, centres)
        loss = sharded_margin_loss(cosine, labels, margin, self._group)
        return Identified(loss, *sharded_without_margin(cosine, labels, margin.scale, self._group))


def _times(x: Tensor, factor: float) -> Tensor:
    """``x``, whose gradient is multiplied by ``factor`` on its way back."""
    return x.detach() + factor * (x - x.detach())
