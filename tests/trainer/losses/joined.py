"""One of several processes that train together; ``test_partial_fc`` starts them and compares with one alone.

Arguments: the folder of the problem, this process's rank, the number of processes.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from trainer.losses.contrastive import nt_xent
from trainer.losses.margin import Margin
from trainer.losses.partial_fc import PartialFC
from trainer.losses.processes import gather
from trainer.quantise import Quantised


def network(weight: torch.Tensor) -> torch.nn.Linear:
    made = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    with torch.no_grad():
        made.weight.copy_(weight)
    return made


def head(centres: torch.Tensor, share: float = 1.0) -> PartialFC:
    """This process's part of an ArcFace head of these centres [classes, k, d]."""
    made = PartialFC(len(centres), centres.shape[2], centres.shape[1], share)
    made.centres = torch.nn.Parameter(centres[made.own.start : made.own.stop].clone())
    return made


def main(folder: Path, rank: int, processes: int) -> None:
    torch.set_num_threads(1)
    with np.load(folder / "problem.npz", allow_pickle=False) as file:
        faces, labels, views, weight, one, two = (
            torch.from_numpy(file[name]) for name in ("faces", "labels", "views", "weight", "one", "two")
        )
    dist.init_process_group("gloo", f"file://{folder / 'meet'}", rank=rank, world_size=processes)
    mine = slice(rank * len(faces) // processes, (rank + 1) * len(faces) // processes)
    out = {}

    for name, centres, margin in (
        ("arcface", one, Margin(0.5, 16.0)),
        ("subcentres", two, Margin(0.3, 16.0, doubt=0.1, softness=0.05)),
    ):
        joined, part = DistributedDataParallel(network(weight)), head(centres)
        optimiser = torch.optim.SGD([*joined.parameters(), *part.parameters()], 0.05, momentum=0.9)
        curve = []
        for _ in range(5):
            optimiser.zero_grad()
            found = part.identify(joined(faces[mine]), labels[mine], margin)
            found.loss.backward()
            optimiser.step()
            curve.append([value.item() for value in found])
        out |= {
            f"{name}.curve": np.array(curve),
            f"{name}.weight": joined.module.weight.detach().numpy(),
            f"{name}.centres": part.centres.detach().numpy(),
        }

    joined = DistributedDataParallel(network(weight))
    loss = nt_xent(*(gather(joined(view[mine])) for view in (faces, views)))
    loss.backward()
    out |= {"nt_xent": np.array(loss.item()), "nt_xent.gradient": joined.module.weight.grad.numpy()}

    part = head(one, share=0.5)
    loss = part(faces[mine] @ weight.T, labels[mine] // 4 * 4, Margin(), torch.Generator().manual_seed(rank))
    loss.backward()
    out |= {
        "sampled": np.array(loss.item()),
        "sampled.moved": part.centres.grad.abs().sum((1, 2)).numpy() > 0,
    }

    layer = Quantised(network(weight))
    layer(faces[mine])
    out["peak"] = layer.peak.numpy()

    np.savez(folder / f"{rank}.npz", allow_pickle=False, **out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
