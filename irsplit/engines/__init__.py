"""Compile-side execution: whole models, calibration, untrusted files in a subprocess."""
