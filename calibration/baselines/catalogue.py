"""The methods by name. Those that need torch import it when they are made."""

from functools import cached_property
from typing import TYPE_CHECKING

from calibration.baselines.lame import Lame
from calibration.baselines.method import Frozen, Method, Source
from engines.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from calibration.baselines.statistics import Moments

FROZEN = "frozen"
WITHOUT_TORCH = (FROZEN, "lame")
WITH_TORCH = ("bn", "tent", "eata", "sar", "rotta")
BASELINES = (*WITHOUT_TORCH, *WITH_TORCH)
TITLES = {
    FROZEN: "frozen source",
    "bn": "BN statistics (Schneider et al. 2020)",
    "tent": "Tent (Wang et al. 2021)",
    "eata": "EATA (Niu et al. 2022)",
    "sar": "SAR (Niu et al. 2023)",
    "rotta": "RoTTA (Yuan et al. 2023)",
    "lame": "LAME (Boudiaf et al. 2022)",
}


class MethodError(UserError):
    """A method cannot be measured; the message says why."""


class Catalogue:
    """Makes methods, each at the source; what they measure on it is measured once."""

    def __init__(self, source: Source, labels: int) -> None:
        """Make methods for ``source``, whose expressions are so many."""
        self._source, self._labels = source, labels

    def make(self, name: str, seed: int) -> Method:
        """A new method, one of ``BASELINES``."""
        if name == FROZEN:
            return Frozen(self._source)
        if name == "lame":
            return Lame(self._source)
        from calibration.baselines import eata, rotta, sar, statistics, tent  # noqa: PLC0415 # torch is an extra

        if name == "rotta":
            return rotta.Rotta(self._source, self._known, self._labels, seed)
        if name == "eata":
            return eata.Eata(self._source, self._known, self._important)
        kinds = {"bn": statistics.BatchNormStatistics, "tent": tent.Tent, "sar": sar.Sar}
        made: Method = kinds[name](self._source, self._known)
        return made

    @cached_property
    def _known(self) -> "dict[str, Moments]":
        from calibration.baselines.statistics import source_moments  # noqa: PLC0415

        return source_moments(self._source)

    @cached_property
    def _important(self) -> "list[Tensor]":
        from calibration.baselines.eata import fisher  # noqa: PLC0415

        return fisher(self._source, self._known)
