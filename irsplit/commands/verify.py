"""irsplit verify DIR: compare a bundle with its model."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from irsplit.commands.coding import add_measure
from irsplit.commands.inputs import add_dims
from irsplit.commands.output import print_json, table
from irsplit.commands.progress import progress
from irsplit.compilation.checks import CheckOptions
from irsplit.compilation.differences import TOLERANCE, OutputDifference
from irsplit.compilation.verification import RandomOutput, Requirements, Verification
from irsplit.runtime.bundle.manifest import Manifest, TensorInfo

EXAMPLES = """
irsplit compile examples/digits/digits.onnx -o build/digits
irsplit verify build/digits
irsplit verify build/digits --inputs examples/digits/pictures --min-agreement 0.99 --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("bundle", type=Path, help="a folder that 'irsplit compile' wrote")
    parser.add_argument(
        "--model",
        type=Path,
        help="the source model, when it is no longer where it was compiled from",
    )

    # On which inputs both run.
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="an input that is the same in every sample: a .npy file, an image, a .wav file or a "
        "number; the other inputs are made up",
    )
    parser.add_argument(
        "--inputs",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="samples with the inputs: files or folders of .npy, .npz, images, .wav",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed for inputs that are made up; default 0"
    )
    add_dims(parser)

    # What the bundle must keep.
    add_measure(parser, "--min-agreement reads")
    parser.add_argument(
        "--min-agreement",
        type=float,
        metavar="SHARE",
        help="exit with 1 when the outputs agree less than this, such as 0.99",
    )
    parser.add_argument(
        "--max-error",
        type=float,
        metavar="X",
        help="exit with 1 when an element of an output is off by more than this",
    )
    parser.add_argument(
        "--min-snr",
        type=float,
        metavar="DB",
        help="exit with 1 when the signal to noise ratio of an output is lower, in dB",
    )
    parser.add_argument(
        "--allow-nothing",
        action="store_true",
        help="exit with 0 when all outputs are empty and nothing is compared",
    )

    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: Namespace) -> int:
    """Verify the bundle, and print what was compared. Returns 0 when it holds, else 1."""
    with progress() as show:
        outcome = checks_of(arguments).run(arguments.bundle, arguments.model, show)

    if arguments.json:
        print_json(outcome.to_json())
    else:
        _print(outcome, Manifest.load(arguments.bundle).inputs)
    return 0 if outcome.holds else 1


def checks_of(arguments: Namespace) -> CheckOptions:
    """Read the arguments as the options of a verification."""
    return CheckOptions(
        samples=arguments.inputs,
        inputs=arguments.input,
        seed=arguments.seed,
        dims=arguments.dims,
        agreement_measure=arguments.agreement_measure,
        requirements=Requirements(arguments.min_agreement, arguments.max_error, arguments.min_snr),
        allow_nothing=arguments.allow_nothing,
    )


def _print(outcome: Verification, infos: Sequence[TensorInfo]) -> None:
    """Print the comparison for every setting, the agreement, and why the bundle does not hold."""
    if outcome.random:
        names = ", ".join(f"%{output.name}" for output in outcome.random)
        print(
            f"the model is random: two runs of the whole differ in {names}, "
            "which are compared by statistics"
        )
        print(_statistics(outcome.random))

    settings = (
        ("optimisations off:", outcome.exact, outcome.tolerance),
        ("engine defaults:  ", outcome.optimized, max(outcome.tolerance, TOLERANCE)),
    )
    for setting, outputs, tolerance in settings:
        if outputs:
            _print_setting(setting, outputs, tolerance, lossless=outcome.lossless)

    if outcome.agreement.worst is not None and not outcome.lossless:
        print(f"agreement {outcome.agreement.worst}{_others(outcome)}")
    empty = ", ".join(f"%{output.name}" for output in outcome.exact if not output.elements)
    if empty:
        print(f"nothing to compare in {empty}: empty in every call")

    count = f"{outcome.calls} call{'s' if outcome.calls > 1 else ''}"
    frames = ", ".join(f"{size} B" for size in outcome.frame_bytes)
    print(f"{count}{_sizes(infos, outcome.shapes)}, frames of {frames}")
    for reason in outcome.failures:
        print(f"FAILED: {reason}")


def _print_setting(
    setting: str, outputs: Sequence[OutputDifference], tolerance: float, *, lossless: bool
) -> None:
    """Print a line on one setting of the engine, and a table where outputs differ."""
    equal = all(output.bit_equal for output in outputs)
    if not any(output.elements for output in outputs):
        print(setting, "nothing could be compared")
    elif equal:
        print(setting, "bit-equal")
    elif not all(output.close(tolerance) for output in outputs):
        print(setting, "differs")
    elif lossless:
        print(setting, f"close, within {tolerance:.2g} of the largest value")
    else:
        print(setting, "quantized")
    if not equal:
        print(_differences(outputs))


def _others(outcome: Verification) -> str:
    """Say of how many readings the printed one is the worst."""
    count = sum(head.compared > 0 for head in outcome.agreement.heads)
    return f", the worst of {count} readings of the outputs" if count > 1 else ""


def _sizes(infos: Sequence[TensorInfo], shapes: Mapping[str, Sequence[int]]) -> str:
    """Name the shapes of inputs that have an open dimension of a size other than 1."""
    texts: list[str] = []
    for info in infos:
        sizes = zip(info.shape or (), shapes[info.name], strict=False)
        if any(dim is None and size != 1 for dim, size in sizes):
            texts.append(f"{info.name} {list(shapes[info.name])}")
    return f" with {', '.join(texts)}" if texts else ""


def _differences(outputs: Sequence[OutputDifference]) -> str:
    """Return a table of how outputs differ."""
    header = ("  output", "max error", "mean error", "largest value", "snr", "same argmax")
    rows = [
        (
            f"  {o.name}",
            f"{o.max_error:.3g}",
            f"{o.mean_error:.3g}",
            f"{o.scale:.4g}",
            f"{o.snr_db:.1f} dB",
            "-" if o.agreement is None else f"{100 * o.agreement:.1f} %",
        )
        for o in outputs
    ]
    return table(header, rows)


def _statistics(outputs: Sequence[RandomOutput]) -> str:
    """Return a table of the statistics of random outputs."""
    header = ("  output", "two runs differ by", "whole model", "bundle", "deviation", "")
    rows = [
        (
            f"  {o.name}",
            f"{o.whole_difference.max_error:.3g}",
            "{:.3g} ± {:.3g}".format(*o.statistics.whole),
            "{:.3g} ± {:.3g}".format(*o.statistics.bundle),
            f"{o.statistics.deviation:.1f} standard errors of {o.statistics.runs} runs",
            "agrees" if o.statistics.agree else "DIFFERS",
        )
        for o in outputs
    ]
    return table(header, rows)
