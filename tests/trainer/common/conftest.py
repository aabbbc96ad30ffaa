import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("tiny.py")


@pytest.fixture(scope="session")
def tiny():
    """The module of the smallest task."""
    spec = importlib.util.spec_from_file_location("tiny", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny"] = module
    spec.loader.exec_module(module)
    return module
