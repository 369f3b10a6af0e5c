"""A pass, a frame codec, a policy, a dialect and an engine for irsplit, as a template."""
