"""What every cut of a model costs, as one JSON object and one page that opens without a network."""

from irsplit.reporting.data import report_data
from irsplit.reporting.inputs import coded_inputs
from irsplit.reporting.page import render

__all__ = ["coded_inputs", "render", "report_data"]
