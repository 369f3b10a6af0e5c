"""From a model file to a bundle, and from a bundle to the next: compile, verify, pack, delta."""
