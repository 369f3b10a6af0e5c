"""A pass and a codec for irsplit, as a template."""
