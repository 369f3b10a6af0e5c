"""Runs whole models while compiling: made-up inputs, measurements, untrusted files in a process."""
