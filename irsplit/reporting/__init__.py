"""What every cut of a model costs, as one JSON object and one page that opens without a network."""

from irsplit.report.data import report_data
from irsplit.report.inputs import coded_inputs
from irsplit.report.page import render

__all__ = ["coded_inputs", "render", "report_data"]
