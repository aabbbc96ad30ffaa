"""Where public weights come from, and how each becomes ONNX."""
