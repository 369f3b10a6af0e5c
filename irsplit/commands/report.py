"""irsplit report MODEL|DIR"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit import sources
from irsplit.commands.arguments import add_cuts
from irsplit.commands.inputs import parse_inputs
from irsplit.commands.output import print_json
from irsplit.commands.planning import add_plan_arguments, chooser
from irsplit.commands.progress import working
from irsplit.compiler import whole_model
from irsplit.dialects.registry import dialect_of
from irsplit.passes.preparation import prepared
from irsplit.report import coded_inputs, render, report_data
from irsplit.runtime.folders import write_file
from irsplit.runtime.manifest import Manifest

EXAMPLES = """
irsplit report examples/digits/digits.onnx -o build/report.html --device pixel-2 --link lte
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="a model file, or a bundle whose model is where it was")
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="default report.html")
    add_plan_arguments(parser)
    parser.set_defaults(device="pixel-2")
    add_cuts(parser)
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=FILE", help="a real input, to know what sending it costs"
    )
    parser.add_argument("--json", action="store_true", help="print the report's data instead of writing a page")


def run(arguments: Namespace) -> int:
    bundle = Manifest.load(arguments.path) if arguments.path.is_dir() else None
    path: Path = arguments.path if bundle is None else sources.find(bundle)
    compiled = [[spec.name for spec in boundary.tensors] for boundary in bundle.boundaries] if bundle else []
    dialect = dialect_of(path)
    given = parse_inputs(arguments.input, whole_model(path)[1])
    with working("pricing cuts"):
        model = dialect.read(path)
        context = prepared(model, dialect, rematerialise=arguments.rematerialise)
        data = report_data(
            model.entry,
            dialect,
            context.cuts(model, arguments.max_tensors),
            chooser(arguments),
            path.name,
            inputs=coded_inputs(given),
            compiled=compiled,
        )
    if arguments.json:
        print_json(data)
        return 0
    write_file(arguments.output, lambda file: file.write(render(data).encode()))
    print(arguments.output)
    return 0
