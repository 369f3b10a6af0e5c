"""From a model file to a bundle on disk, and from one bundle to the next: compile, verify, pack, delta, build files."""
