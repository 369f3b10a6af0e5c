"""irsplit report MODEL|DIR"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from irsplit.base.atomic_files import write_file
from irsplit.commands.arguments import add_cuts, add_dims, add_state
from irsplit.commands.coding import add_pricing
from irsplit.commands.inputs import parse_inputs
from irsplit.commands.log import say, say_remarks
from irsplit.commands.output import print_json
from irsplit.commands.planning import add_plan_arguments, chooser
from irsplit.commands.progress import working
from irsplit.compilation import sources
from irsplit.compilation.compiler import conditions_of, preparation_of, whole_model
from irsplit.compilation.samples import CalibrationSamples
from irsplit.dialects.registry import dialect_of
from irsplit.engines.inputs import load_calls
from irsplit.passes import Pipeline
from irsplit.passes.choose_cut import ChooseCut
from irsplit.passes.preparation import context_of, preparation, sizes_in
from irsplit.passes.targets import boundary_bits
from irsplit.reporting import coded_inputs, render, report_data
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.store import is_bundle

EXAMPLES = """
irsplit report examples/digits/digits.onnx -o build/report.html --device pixel-2 --link lte
irsplit report examples/digits/digits.onnx -o build/int8.html --boundary int8 --codec auto --link 3g
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "path", type=Path, help="a model file, or a bundle, whose own options count unless given"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="default report.html"
    )
    _add_conditions(parser)
    parser.set_defaults(**dict.fromkeys(vars(_defaults())))
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a real input, to know what sending it costs",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the report's data instead of writing a page"
    )


def _add_conditions(parser: ArgumentParser) -> None:
    """What a bundle has of its own."""
    add_plan_arguments(parser)
    parser.set_defaults(device="pixel-2")
    add_cuts(parser)
    add_state(parser)
    add_dims(parser)
    add_pricing(parser)


def _defaults() -> Namespace:
    parser = ArgumentParser()
    _add_conditions(parser)
    return parser.parse_args([])


def run(arguments: Namespace) -> int:
    bundle = Manifest.load(arguments.path) if is_bundle(arguments.path) else None
    path: Path = arguments.path if bundle is None else sources.find(bundle)
    compiled = (
        [[spec.name for spec in boundary.tensors] for boundary in bundle.boundaries]
        if bundle
        else []
    )
    dialect = dialect_of(path)
    infos = whole_model(path)[1]
    inputs = parse_inputs(arguments.input, infos)
    calls = load_calls(arguments.calibration, infos) if arguments.calibration else []
    with working("pricing cuts"):
        model = dialect.read(path)
        before, conditions = _as_asked(arguments, sizes_in(model, calls))
        if bundle is not None:
            before, conditions = _as_compiled(arguments, bundle, before, conditions)
        context = context_of(dialect)
        before.run(model, context)
        context.samples = CalibrationSamples(dialect, model.entry, calls) if calls else None
        data = report_data(
            context.cuts(model, conditions.max_tensors),
            dialect,
            conditions,
            path.name,
            inputs=coded_inputs(inputs),
            compiled=compiled,
            ratios=conditions.ratios(model, context),
        )
    say_remarks(context.remarks)
    if data["open"]:
        say(f"note: {data['open']}")
    if arguments.json:
        print_json(data)
        return 0
    write_file(arguments.output, lambda file: file.write(render(data).encode()))
    print(arguments.output)
    return 0


def _as_asked(arguments: Namespace, assumed: Sequence[str]) -> tuple[Pipeline, ChooseCut]:
    """What comes before the cuts, and the conditions to price them under."""
    options = _defaults()
    vars(options).update((name, getattr(arguments, name)) for name in _given(arguments))
    before = preparation(
        options.state, options.dim, assumed=assumed, rematerialise=options.rematerialise
    )
    return before, chooser(options, options.codec, boundary_bits(options.boundary))


def _as_compiled(
    arguments: Namespace, bundle: Manifest, before: Pipeline, asked: ChooseCut
) -> tuple[Pipeline, ChooseCut]:
    """The same as when the bundle was compiled, but for the options that are given, which are `asked` for."""
    passes = Pipeline.parse(bundle.raw["pipeline"])
    options = _given(arguments)
    if options.isdisjoint(("state", "dim", "rematerialise")):
        before = preparation_of(passes)
    if "boundary" in options:
        options.add("bits")
    changes = {
        field.name: getattr(asked, field.name)
        for field in fields(ChooseCut)
        if field.name in options
    }
    return before, replace(conditions_of(passes), **changes)


def _given(arguments: Namespace) -> set[str]:
    return {name for name in vars(_defaults()) if getattr(arguments, name) is not None}
