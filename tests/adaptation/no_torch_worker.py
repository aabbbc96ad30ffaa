"""The agent's own worker where PyTorch is not installed. Started by tests."""

import sys

sys.modules["torch"] = None  # type: ignore[assignment] # any import of it fails from here on

from agent.adaptation.tiers import adapter_of_pack  # noqa: E402
from agent.adaptation.worker import main  # noqa: E402

if __name__ == "__main__":
    main(adapter_of_pack)
