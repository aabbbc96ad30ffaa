from pathlib import Path

import pytest
import torch

from calibration.faces import read_image
from trainer.data.reading import fit, rgb

HUBCONF = """
import torch
from torch import nn


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 16, 16)

    def forward(self, x):
        found = self.patches(x)
        return found.mean((2, 3)), found.flatten(2).transpose(1, 2)


def tiny_radio(version="", seed=0):
    torch.manual_seed(seed)
    model = Tokens()
    if version:
        model.load_state_dict(torch.load(version)["state_dict"])
    return model
"""


@pytest.fixture(scope="session")
def repository(tmp_path_factory) -> Path:
    """A repository with a hubconf.py whose model answers as RADIO does: a summary, and tokens."""
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    folder.mkdir()
    (folder / "hubconf.py").write_text(HUBCONF)
    return folder


@pytest.fixture(scope="session")
def faces(lfw) -> torch.Tensor:
    """Real faces, uint8 RGB [6, 3, 150, 150]."""
    files = [sorted(folder.iterdir())[0] for folder in sorted(lfw.iterdir())[:6]]
    pictures = [rgb(fit(read_image(file), 150)) for file in files]
    return torch.stack([torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures])
