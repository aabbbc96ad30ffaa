"""Representative data, quantisation, thresholds and evaluations: what is measured before a model may ship."""

import engines as _  # noqa: F401 - before ONNX Runtime, which it forbids to report itself
