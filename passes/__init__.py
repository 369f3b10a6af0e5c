"""Transformation passes and analyses over the IR (installed as irsplit.passes)."""
