"""Transformation passes and analyses over the IR (installed as irsplit.passes)."""

from irsplit.passes.analysis.cuts import Cut, find_cuts, legal_cuts, schedule, select_cut
from irsplit.passes.base import Context, Pass, Remark
from irsplit.passes.pipeline import Pipeline, registry

__all__ = [
    "Context",
    "Cut",
    "Pass",
    "Pipeline",
    "Remark",
    "find_cuts",
    "legal_cuts",
    "registry",
    "schedule",
    "select_cut",
]
