"""Build a cost table from a model, and turn the planner's answer back into cuts of that model."""
