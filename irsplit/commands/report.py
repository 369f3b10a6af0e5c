"""irsplit report MODEL|DIR: write a page with what every cut costs."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import cast

from irsplit.commands.arguments import add_cuts, add_dims, add_state
from irsplit.commands.coding import add_pricing
from irsplit.commands.flags import in_flags
from irsplit.commands.log import say, say_remarks
from irsplit.commands.options import given_options
from irsplit.commands.output import print_json
from irsplit.commands.planning import add_plan_arguments
from irsplit.commands.progress import working
from irsplit.compilation.cost_report import ReportSource, report
from irsplit.compilation.input_words import parse_inputs
from irsplit.compilation.options import PlanKeywords
from irsplit.compilation.samples import input_infos

EXAMPLES = """
irsplit report examples/digits/digits.onnx -o build/report.html --device pixel-2 --link lte
irsplit report examples/digits/digits.onnx -o build/int8.html --quantize int8 --codec auto --link 3g
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "path", type=Path, help="a model file; or a bundle, whose options are the defaults"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        help="page to write; default report.html",
    )
    _add_conditions(parser)

    # None stands for an option that is not given: a bundle then has its own.
    conditions = ArgumentParser()
    _add_conditions(conditions)
    parser.set_defaults(**dict.fromkeys(vars(conditions.parse_args([]))))

    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a real input, to find what sending it costs",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the report's data instead of writing a page"
    )


def _add_conditions(parser: ArgumentParser) -> None:
    """Declare the options for which a bundle has values of its own."""
    add_plan_arguments(parser)
    add_cuts(parser)
    add_state(parser)
    add_dims(parser)
    add_pricing(parser)


def run(arguments: Namespace) -> int:
    """Write the page, or print its data."""
    source = ReportSource.of(arguments.path)
    inputs = parse_inputs(arguments.input, input_infos(source.file.model.entry))
    with working("pricing cuts"):
        made = report(
            source,
            inputs=inputs,
            calibration=arguments.calibration or (),
            **cast(PlanKeywords, given_options(arguments)),
        )

    say_remarks(made.remarks)
    if made.data["open"]:
        say(f"note: {in_flags(made.data['open'])}")
    if arguments.json:
        print_json(made.data)
        return 0

    made.save(arguments.output)
    print(arguments.output)
    return 0
