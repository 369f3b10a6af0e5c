"""Compile side of the boundary codec: trains models from calibration tensors and chooses codecs."""
