"""Integer networks as data, and what runs them: the same integers from every backend."""

import os

# ONNX Runtime's Linux wheels report to their makers unless told otherwise before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
