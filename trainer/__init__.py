"""Training of the project's own networks; needs PyTorch (``pip install 'cabinsense[trainer]'``)."""

import engines as _  # noqa: F401 - before ONNX Runtime, which it forbids to report itself
