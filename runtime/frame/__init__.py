"""Frames: the tensors of a boundary as bytes, and back."""
