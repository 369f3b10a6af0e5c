"""Prepare what crosses a cut: train its codec, find the ranges of quantization, measure agreement.

Nothing here runs on a device or a server. The results are schemas (`FrameSchema`) with quantization
and codec parameters, from which `irsplit.runtime.frame` encodes and decodes.
"""
