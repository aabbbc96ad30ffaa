"""The real parts that tests share: models, pictures and data sets."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from agent import paths
from engines.pack import Pack
from engines.sources import archives, default_pack
from engines.sources.fetch import Member, fetch

# The same examples in every run, and no verdict on how long one takes: that depends on what else the machine does.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def sources() -> dict[Member, Path]:
    """The published models as they were fetched."""
    return fetch(archives.MODELS, paths.cache_dir() / "sources", _quiet)


@pytest.fixture(scope="session")
def pack() -> Pack:
    """The default pack, made as `cabinsense models fetch` makes it, once for all runs of the tests."""
    folder = paths.cache_dir() / "tests" / "packs" / "default"
    return default_pack.make(folder, paths.cache_dir() / "sources", _quiet)


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of the sample clip and photographs."""
    fetch(archives.SAMPLES, paths.samples_dir(), _quiet)
    return paths.samples_dir()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets, which are not part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"{SHARED_DATA} is absent")
    return SHARED_DATA


@pytest.fixture(scope="session")
def lfw(shared_data: Path) -> Path:
    """Labeled Faces in the Wild: images and pairs."""
    if not (shared_data / "lfw").is_dir():
        pytest.skip(f"{shared_data / 'lfw'} is absent")
    return shared_data / "lfw"


def _quiet(*_: object) -> None:
    """Nobody watches the downloads of a test run."""
