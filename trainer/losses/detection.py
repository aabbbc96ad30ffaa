"""SSD's loss and its arithmetic of boxes (Liu et al., ECCV 2016): anchors, matching, offsets, hard negatives.

Boxes are float [k, 4] as left, top, right, bottom; anchors float [a, 4] as centre x, centre y, width, height; both in
one unit, pixels of the network's input unless the caller has another.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from trainer.losses.precision import wide

# Offsets are divided by these, so that they spread about as far as class scores; from the authors' code.
CENTRE_VARIANCE = 0.1
SIZE_VARIANCE = 0.2
NEGATIVES_A_POSITIVE = 3  # Liu et al. 2016, section 2.2
NEITHER = -1  # label of an anchor that is neither to find a face nor to be background
LARGEST_GROWTH = math.log(
    1000.0 / 16.0
)  # of a side over its anchor's, in decoding: exp overflows early; as torchvision


def anchors(
    rows: int, columns: int, stride: float, sizes: Sequence[float], ratios: Sequence[float]
) -> Tensor:
    """The anchors of one feature map: at each place, row by row, every size with every ratio.

    Args:
        rows: of the map.
        columns: of the map.
        stride: input pixels between two places; the first centre is at half a stride.
        sizes: square root of an anchor's area, in input pixels, above 0.
        ratios: width over height, above 0.

    Returns:
        float32 [rows * columns * sizes * ratios, 4].
    """
    shapes = [
        (size * math.sqrt(ratio), size / math.sqrt(ratio)) for size, ratio in itertools.product(sizes, ratios)
    ]
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    centres = torch.stack([x, y], 2).reshape(-1, 1, 2) * stride
    sides = torch.tensor(shapes, dtype=torch.float32)[None]
    return torch.cat([centres.expand(-1, len(shapes), -1), sides.expand(len(centres), -1, -1)], 2).reshape(
        -1, 4
    )


def corners(anchor: Tensor) -> Tensor:
    """Anchors as boxes, [a, 4] of [a, 4]."""
    return torch.cat([anchor[:, :2] - anchor[:, 2:] / 2, anchor[:, :2] + anchor[:, 2:] / 2], 1)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes [k, 4] and [m, 4]: float [k, m], 0..1, 0 where both are empty."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (high - low).clamp_min(0.0).prod(2)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).clamp_min(0.0).prod(1) for box in (a, b))
    union = area_a[:, None] + area_b[None] - common
    return torch.where(union > 0.0, common / union, torch.zeros_like(union))


def encode(boxes: Tensor, anchor: Tensor) -> Tensor:
    """Offsets of boxes from anchors, row by row: what the network is to predict, float [k, 4].

    Args:
        boxes: float [k, 4], sides above 0.
        anchor: float [k, 4].

    Raises:
        ValueError: a box has no area.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    if not (sides > 0.0).all():
        raise ValueError("a box has no area: leave such boxes out")
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    centre = (middle - anchor[:, :2]) / anchor[:, 2:] / CENTRE_VARIANCE
    return torch.cat([centre, (sides / anchor[:, 2:]).log() / SIZE_VARIANCE], 1)


def decode(offsets: Tensor, anchor: Tensor) -> Tensor:
    """The boxes, float [k, 4], that ``encode`` makes these offsets of; sides at most 62.5 times the anchor's."""
    middle = anchor[:, :2] + offsets[:, :2] * CENTRE_VARIANCE * anchor[:, 2:]
    sides = anchor[:, 2:] * (offsets[:, 2:] * SIZE_VARIANCE).clamp_max(LARGEST_GROWTH).exp()
    return torch.cat([middle - sides / 2, middle + sides / 2], 1)


def match(boxes: Tensor, anchor: Tensor, threshold: float = 0.5) -> Tensor:
    """Which box each anchor is to find, -1 for none: int64 [a].

    Every box gets the free anchor that overlaps it most, boxes with the largest overlap choose first; then every other
    anchor that overlaps a box by more than ``threshold`` gets the one it overlaps most.

    Args:
        boxes: float [k, 4]; k may be 0.
        anchor: float [a, 4].
        threshold: intersection over union, 0..1.
    """
    if not len(boxes):
        return torch.full((len(anchor),), -1, dtype=torch.int64, device=anchor.device)
    iou = overlap(boxes, corners(anchor))
    best = iou.max(0)
    found = torch.where(best.values > threshold, best.indices, -1)
    free = iou.clone()
    waiting = torch.arange(len(boxes), device=boxes.device)
    while len(waiting):
        value, place = free[waiting].max(1)
        order = value.argsort(descending=True, stable=True)
        order = order[value[order] > 0.0]  # what touches no free anchor goes without
        waiting, place = waiting[order], place[order]
        # The first to choose each anchor gets it, the others look again.
        chosen: dict[int, int] = {}
        for box, taken in zip(waiting.tolist(), place.tolist(), strict=True):
            chosen.setdefault(taken, box)
        held = torch.tensor(list(chosen), dtype=torch.int64, device=boxes.device)
        owners = torch.tensor(list(chosen.values()), dtype=torch.int64, device=boxes.device)
        found[held] = owners
        free[:, held] = 0.0
        waiting = waiting[~torch.isin(waiting, owners)]
    return found


def hard_negatives(
    losses: Tensor, positive: Tensor, ratio: int = NEGATIVES_A_POSITIVE, least: int = 0
) -> Tensor:
    """The anchors without a face that look most like one: in each image, ``ratio`` for every positive, bool [n, a].

    Args:
        losses: float [n, a], each anchor's loss if it is background; -inf where it is not to count.
        positive: bool [n, a].
        ratio: at least 0.
        least: negatives of an image, also of one without a face.
    """
    losses = losses.detach().masked_fill(positive, -torch.inf)
    rank = losses.argsort(1, descending=True).argsort(1)
    wanted = (ratio * positive.sum(1, keepdim=True)).clamp_min(least)
    return (rank < wanted) & (losses > -torch.inf)


def multibox_loss(
    logits: Tensor, offsets: Tensor, labels: Tensor, targets: Tensor, least: int = 0
) -> tuple[Tensor, Tensor]:
    """Confidence and localisation loss, both over the number of matched anchors; their sum is SSD's loss.

    Args:
        logits: float [n, a, classes], class 0 the background.
        offsets: float [n, a, 4], as ``encode`` makes them.
        labels: int64 [n, a], 0 for the background, the class of the matched box otherwise; ``NEITHER`` where an anchor
            is to be left alone.
        targets: float [n, a, 4], ``encode`` of the matched box; anything where the label is not above 0.
        least: negatives of an image, also of one without a face.

    Returns:
        Cross-entropy of matched anchors and hard negatives, float [], and smooth-L1 (threshold 1) of the matched
        anchors' offsets, float []. Without a match, the second is 0 with gradient 0, and so is the first if ``least``
        is 0.
    """
    positive = labels > 0
    matched = positive.sum().clamp_min(1)
    logits = wide(logits)
    entropy = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=NEITHER
    ).reshape(labels.shape)
    background = (-logits.log_softmax(2)[:, :, 0]).masked_fill(labels == NEITHER, -torch.inf)
    counted = positive | hard_negatives(background, positive, least=least)
    far = functional.smooth_l1_loss(wide(offsets)[positive], wide(targets)[positive], reduction="sum")
    return (entropy * counted).sum() / matched, far / matched
