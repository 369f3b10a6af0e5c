"""irsplit header BUNDLE"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.boundary.header import c_header
from irsplit.errors import BundleError
from irsplit.runtime.folders import write_file
from irsplit.runtime.manifest import Manifest

EXAMPLES = """
irsplit compile examples/digits/digits.tflite -o build/firmware --codec raw
irsplit header build/firmware --dim 1 -o build/boundary.h
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="a folder that 'irsplit compile' wrote")
    parser.add_argument("--boundary", type=int, default=0, metavar="N", help="which one of several; default 0")
    parser.add_argument("--dim", type=int, metavar="N", help="the size of dimensions that may vary, such as the batch")
    parser.add_argument("-o", "--output", type=Path, metavar="boundary.h", help="write it there; default: print it")


def run(arguments: Namespace) -> int:
    boundaries = Manifest.load(arguments.bundle).boundaries
    if not 0 <= arguments.boundary < len(boundaries):
        raise BundleError(
            f"{arguments.bundle}: has no boundary {arguments.boundary}; it has {len(boundaries)}, numbered from 0"
        )
    text = c_header(boundaries[arguments.boundary], arguments.dim)
    if arguments.output is None:
        print(text, end="")
    else:
        write_file(arguments.output, lambda file: file.write(text.encode()))
    return 0
