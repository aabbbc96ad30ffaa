"""How large what is learnt is: the unit of its steps and distances.

A step that suits one norm layer throws another one over: factors of the default pack are 0.004 to 20.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_FACTOR = 1e-6


def unit(name: str, value: "NDArray[np.float32] | Tensor", least_addend: float = 1.0) -> float:
    """The mean size of a tensor that is learnt.

    Args:
        name: it is one of factors where the last part is ``scale`` or ``weight``, else of addends.
        value: as it is before a step; a tensor that is detached.
        least_addend: the unit of addends that are smaller: one that is nothing is still to learn. Unless there is
            something better to go by, that of the answers of a norm layer, to which it is added.
    """
    least = _LEAST_FACTOR if name.rpartition(".")[2] in {"scale", "weight"} else least_addend
    return max(float(np.abs(np.asarray(value)).mean()), least)
