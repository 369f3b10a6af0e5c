"""TFLite: .tflite files in and out."""

from irsplit.dialects.tflite.dialect import TfliteDialect

__all__ = ["TfliteDialect"]
