"""From a model to a cost table for the planner, and from the planner's answer back to cuts."""
