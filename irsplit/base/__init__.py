"""What every other room stands on: errors, element types, digests, files that appear whole, lazy imports."""
