"""Measurements: profiles of models and bundles, benchmarks of cuts, and what follows from them."""
