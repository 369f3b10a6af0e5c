"""irsplit header BUNDLE: write a boundary as a C header."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.base.atomic_files import write_file
from irsplit.base.errors import BundleError
from irsplit.codec_training.header import c_header
from irsplit.commands.arguments import DIM, DIM_NAMES
from irsplit.compilation.input_words import tensor_sizes
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.frame.descriptor import FrameSchema

CORE_CODECS = ("raw", "static-rans")
"""The codecs that irs_encode and irs_decode have without hooks."""

EXAMPLES = """
irsplit compile examples/digits/digits.tflite -o build/firmware --codec raw
irsplit header build/firmware --dim 1 -o build/boundary.h
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "bundle", type=Path, help="a folder that 'irsplit compile' wrote, or a packed side"
    )
    parser.add_argument(
        "--boundary", type=int, default=0, metavar="N", help="number of the boundary; default 0"
    )

    parser.add_argument(
        "--dim",
        action="append",
        default=[],
        metavar=DIM,
        help=f"size of an open dimension, such as the batch; {DIM_NAMES}; N alone is for all",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="boundary.h", help="file to write; default: print it"
    )


def run(arguments: Namespace) -> int:
    """Write or print the header, and warn of codecs that the C core lacks."""
    manifest = Manifest.load(arguments.bundle)
    boundaries = manifest.boundaries
    if not 0 <= arguments.boundary < len(boundaries):
        raise BundleError(
            f"{arguments.bundle}: has no boundary {arguments.boundary}; "
            f"it has {len(boundaries)}, numbered from 0"
        )

    boundary = boundaries[arguments.boundary]
    numbers = [word for word in arguments.dim if word.isdecimal()]
    words = [word for word in arguments.dim if word not in numbers]
    dims = tensor_sizes(words, {spec.name: spec.shape for spec in boundary.tensors}, manifest)
    text = c_header(boundary, int(numbers[-1]) if numbers else None, dims)

    if arguments.output is None:
        print(text, end="")
    else:
        write_file(arguments.output, lambda file: file.write(text.encode()))
    _warn_of_codecs(boundary)
    return 0


def _warn_of_codecs(boundary: FrameSchema) -> None:
    """Warn of codecs that C code needs hooks for."""
    outside = sorted({str(spec.codec) for spec in boundary.tensors} - set(CORE_CODECS))
    if outside:
        print(
            f"warning: {boundary} is coded with {', '.join(outside)}, "
            "which the C core takes from irs_hooks only; "
            "compile with --codec raw or --codec static-rans",
            file=sys.stderr,
        )
