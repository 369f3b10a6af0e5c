"""TFLite: .tflite files in and out."""

from irsplit.dialects.tflite.dialect import TfliteDialect

TFLITE = TfliteDialect()

__all__ = ["TFLITE", "TfliteDialect"]
