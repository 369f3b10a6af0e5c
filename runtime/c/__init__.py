"""The C core of frames: `_native` for Python, `_operators` for hosts of ONNX Runtime."""
