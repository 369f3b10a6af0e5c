"""irsplit run BUNDLE: run all segments of a bundle."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np

from irsplit.base.atomic_files import write_file
from irsplit.commands.engine import add_engine, engine_options
from irsplit.commands.output import size
from irsplit.commands.progress import working
from irsplit.compilation.input_words import parse_inputs
from irsplit.engines.execute import run_bundle
from irsplit.engines.isolate import isolated
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.session import check_inputs

EXAMPLES = """
irsplit compile examples/digits/digits.onnx -o build/digits
irsplit run build/digits --input image=examples/digits/pictures/3.png -o build/outputs.npz
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "bundle",
        type=Path,
        help="a folder that 'irsplit compile' wrote, or a packed side that has all segments",
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="an input: a .npy file, an image, a .wav file or a number; repeat it for every input",
    )
    add_engine(parser, threads=0)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT.npz", help="file to write the outputs to, by name"
    )


def run(arguments: Namespace) -> int:
    """Run the bundle once, and print its outputs and the sizes of its frames."""
    manifest = Manifest.load(arguments.bundle)
    inputs = check_inputs(manifest.inputs, parse_inputs(arguments.input, manifest.inputs))
    options = engine_options(arguments, manifest.segments[0].format)

    with working("running"):
        outputs, frames = isolated(run_bundle, arguments.bundle, [inputs], options)

    for name, value in outputs[0].items():
        print(f"{name}  {_described(value)}")
    print("frames:", ", ".join(size(count) for count in frames[0]))
    if arguments.output is not None:
        arrays: dict[str, Any] = outputs[0]
        write_file(arguments.output, lambda file: np.savez(file, **arrays))
    return 0


def _described(value: Any) -> str:
    """Describe an output by type, shape, first elements and index of the largest."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or not array.size:
        return f"{array.dtype}{list(array.shape)}"
    first = ", ".join(f"{item:.4g}" for item in array.ravel()[:6])
    dots = ", ..." if array.size > 6 else ""
    return f"{array.dtype}{list(array.shape)}  [{first}{dots}]  largest at {int(array.argmax())}"
