"""The C core of frames, built from this folder: `_native` for Python, `_operators` for hosts of ONNX Runtime."""
