"""Tensors of a boundary to a frame and back."""
