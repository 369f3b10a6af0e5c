"""What every other room stands on.

Errors, element types, digests, files that appear whole, lazy imports, untrusted files.
"""
