"""irsplit report MODEL|DIR"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit import sources
from irsplit.commands.arguments import add_cuts, add_state
from irsplit.commands.coding import add_pricing
from irsplit.commands.inputs import parse_inputs
from irsplit.commands.output import print_json
from irsplit.commands.planning import add_plan_arguments, chooser
from irsplit.commands.progress import working
from irsplit.compiler import boundary_bits, observer, whole_model
from irsplit.dialects.registry import dialect_of
from irsplit.engines.inputs import load_calls
from irsplit.passes.preparation import prepared
from irsplit.report import coded_inputs, render, report_data
from irsplit.runtime.folders import write_file
from irsplit.runtime.manifest import Manifest
from irsplit.runtime.store import is_bundle

EXAMPLES = """
irsplit report examples/digits/digits.onnx -o build/report.html --device pixel-2 --link lte
irsplit report examples/digits/digits.onnx -o build/int8.html --boundary int8 --codec auto --link 3g
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="a model file, or a bundle whose model is where it was")
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="default report.html")
    add_plan_arguments(parser)
    parser.set_defaults(device="pixel-2")
    add_cuts(parser)
    add_state(parser)
    add_pricing(parser)
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=FILE", help="a real input, to know what sending it costs"
    )
    parser.add_argument("--json", action="store_true", help="print the report's data instead of writing a page")


def run(arguments: Namespace) -> int:
    bundle = Manifest.load(arguments.path) if is_bundle(arguments.path) else None
    path: Path = arguments.path if bundle is None else sources.find(bundle)
    compiled = [[spec.name for spec in boundary.tensors] for boundary in bundle.boundaries] if bundle else []
    dialect = dialect_of(path)
    infos = whole_model(path)[1]
    given = parse_inputs(arguments.input, infos)
    calls = load_calls(arguments.calibration, infos) if arguments.calibration else []
    conditions = chooser(arguments, arguments.codec, boundary_bits(arguments.boundary))
    with working("pricing cuts"):
        model = dialect.read(path)
        context = prepared(model, dialect, arguments.state, rematerialise=arguments.rematerialise)
        context.observe = observer(dialect, calls) if calls else None
        data = report_data(
            context.cuts(model, arguments.max_tensors),
            dialect,
            conditions,
            path.name,
            inputs=coded_inputs(given),
            compiled=compiled,
            ratios=conditions.ratios(model, context),
        )
    if arguments.json:
        print_json(data)
        return 0
    write_file(arguments.output, lambda file: file.write(render(data).encode()))
    print(arguments.output)
    return 0
