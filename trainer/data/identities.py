"""Folders of photographs, one for each person: ``ROOT/NAME/FILE``. LFW is laid out so."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.faces import Image, read_image
from calibration.lfw import all_photographs, person
from trainer.data.reading import DataError, fit, rgb
from trainer.data.split import digest_of_files


class IdentityFolders:
    """Photographs of people, as a source (see ``trainer.data.reading``).

    Attributes:
        people: the name of each class, sorted: a person's class follows from who else is there, not from the disk.
        photos: paths below the root, sorted.
        labels: int64 [n], the class of each photograph.
    """

    def __init__(
        self, root: Path, side: int, *, people: Collection[str] | None = None, least: int = 1
    ) -> None:
        """Find the photographs.

        Args:
            root: folder of the people's folders; what lies deeper is not looked at.
            side: of the pictures to give.
            people: only these; None takes everybody.
            least: people with fewer photographs are left out.

        Raises:
            LfwError: there are no photographs here.
            DataError: nobody is left.
        """
        self.root, self._side = root, side
        found = all_photographs(root)
        counts = Counter(person(photo) for photo in found)
        wanted = {
            name for name, count in counts.items() if count >= least and (people is None or name in people)
        }
        if not wanted:
            raise DataError(
                f"{root}: nobody of those wanted has {least} photographs here; ask for fewer, or for others"
            )
        self.people = tuple(sorted(wanted))
        self.photos = [photo for photo in found if person(photo) in wanted]
        number = {name: place for place, name in enumerate(self.people)}
        self.labels: NDArray[np.int64] = np.array([number[person(photo)] for photo in self.photos], np.int64)

    def photograph(self, index: int) -> Image:
        """The whole photograph: uint8 BGR [height, width, 3].

        Raises:
            ImageError: it cannot be read.
        """
        return read_image(self.root / self.photos[index])

    def read(self, index: int) -> NDArray[np.uint8]:
        """The central square of the photograph: uint8 RGB [side, side, 3].

        Raises:
            ImageError: it cannot be read.
        """
        return rgb(fit(self.photograph(index), self._side))

    def name(self, index: int) -> str:
        """The file."""
        return str(self.root / self.photos[index])

    def digest(self) -> str:
        """What these photographs are (see ``split.digest_of_files``)."""
        return digest_of_files(self.root, self.photos)
