"""Analyses: they look at a graph and never change it."""
