"""irsplit report MODEL|DIR"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit import sources
from irsplit.commands.output import print_json
from irsplit.commands.planning import add_plan_arguments, chooser
from irsplit.dialects.registry import dialect_of
from irsplit.report import render, report_data
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
    parser.add_argument("--max-tensors", type=int, default=1, metavar="K", help="allow frontiers of up to K tensors")
    parser.add_argument("--json", action="store_true", help="print the report's data instead of writing a page")


def run(arguments: Namespace) -> int:
    path: Path = sources.find(Manifest.load(arguments.path)) if arguments.path.is_dir() else arguments.path
    dialect = dialect_of(path)
    model = dialect.read(path)
    choice = chooser(arguments).choose(model, dialect.macs)
    data = report_data(model, choice, dialect.macs, arguments.max_tensors, path.name)
    if arguments.json:
        print_json(data)
        return 0
    write_file(arguments.output, lambda file: file.write(render(data).encode()))
    print(arguments.output)
    return 0
