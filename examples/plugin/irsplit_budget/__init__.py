"""A pass, a frame codec, a dialect and an engine for irsplit, as a template."""
