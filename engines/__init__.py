"""Models made runnable: the engine protocol, its backends, and the packs they load."""

import os

# ONNX Runtime's Linux packages report their use to Microsoft and keep a number for the machine in the home folder. An
# agent that watches faces in a car calls nobody. It looks at this variable when it is first imported (its Privacy.md).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
