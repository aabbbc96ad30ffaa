import pytest
import torch

from calibration.faces import read_image
from trainer.data.reading import fit, rgb


@pytest.fixture(scope="session")
def faces(lfw) -> torch.Tensor:
    """Real faces, uint8 RGB [6, 3, 150, 150]."""
    files = [sorted(folder.iterdir())[0] for folder in sorted(lfw.iterdir())[:6]]
    pictures = [rgb(fit(read_image(file), 150)) for file in files]
    return torch.stack([torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures])
