"""irsplit verify DIR"""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from irsplit.commands.inputs import add_dims, bundle_dims, parse_inputs
from irsplit.commands.output import print_json, table
from irsplit.commands.progress import progress
from irsplit.compilation.verification import TOLERANCE, OutputDifference, verify_bundle
from irsplit.engines.inputs import load_calls
from irsplit.runtime.bundle.manifest import Manifest, TensorInfo

EXAMPLES = """
irsplit compile examples/digits/digits.onnx -o build/digits
irsplit verify build/digits
irsplit verify build/digits --inputs examples/digits/pictures --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="a folder that 'irsplit compile' wrote")
    parser.add_argument(
        "--model",
        type=Path,
        help="the source model, when it is no longer where it was compiled from",
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="an input of every call: .npy, an image, a .wav, or a number; the other inputs are made up",
    )
    parser.add_argument(
        "--inputs", type=Path, nargs="+", default=[], metavar="FILE", help="inputs of several calls"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="for inputs that are made up; default 0"
    )
    add_dims(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: Namespace) -> int:
    infos = Manifest.load(arguments.bundle).inputs
    calls = load_calls(arguments.inputs, infos) if arguments.inputs else []
    fixed, dims = parse_inputs(arguments.input, infos), bundle_dims(arguments.dim, infos)
    with progress() as told:
        outcome = verify_bundle(
            arguments.bundle,
            arguments.model,
            calls=calls,
            fixed=fixed,
            seed=arguments.seed,
            dims=dims,
            progress=told,
        )
    if arguments.json:
        print_json(outcome.to_json())
        return 0 if outcome.holds else 1
    settings = (
        ("optimisations off:", outcome.exact, outcome.tolerance),
        ("engine defaults:  ", outcome.optimized, max(outcome.tolerance, TOLERANCE)),
    )
    for setting, outputs, tolerance in settings:
        equal = all(output.bit_equal for output in outputs)
        close = all(output.close(tolerance) for output in outputs)
        within = (
            f"close, within {tolerance:.2g} of the largest value"
            if outcome.lossless
            else "quantized"
        )
        print(setting, "bit-equal" if equal else within if close else "differs")
        if not equal:
            print(_differences(outputs))
    frames = ", ".join(f"{size} B" for size in outcome.frame_bytes)
    print(
        f"{outcome.calls} call{'s' if outcome.calls > 1 else ''}{_sizes(infos, outcome.shapes)}, frames of {frames}"
    )
    if not outcome.holds:
        print("FAILED: the bundle does not compute what its model computes")
    return 0 if outcome.holds else 1


def _sizes(infos: Sequence[TensorInfo], shapes: Mapping[str, Sequence[int]]) -> str:
    """Shapes of the inputs where dimensions that may vary are not just 1."""
    told = [
        f"{info.name} {list(shapes[info.name])}"
        for info in infos
        if any(
            dim is None and size != 1
            for dim, size in zip(info.shape or (), shapes[info.name], strict=False)
        )
    ]
    return f" with {', '.join(told)}" if told else ""


def _differences(outputs: Sequence[OutputDifference]) -> str:
    header = ("  output", "max error", "mean error", "largest value", "same argmax")
    rows = [
        (
            f"  {o.name}",
            f"{o.max_error:.3g}",
            f"{o.mean_error:.3g}",
            f"{o.scale:.4g}",
            f"{100 * o.agreement:.1f} %",
        )
        for o in outputs
    ]
    return table(header, rows)
