"""irsplit apply OLD PATCH -o NEW: make the new build of a bundle."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.commands.progress import progress
from irsplit.commands.public_key import add_public_key
from irsplit.runtime.bundle.patch import apply_delta

EXAMPLES = """
irsplit compile examples/digits/digits.onnx -o build/old
irsplit compile examples/digits/digits.onnx -o build/new --quantize int8 \
--calibration examples/digits/pictures
irsplit delta build/old build/new -o build/update.irsd
irsplit apply build/old build/update.irsd -o build/updated
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("old", type=Path, help="the bundle that the patch was made against")
    parser.add_argument("patch", type=Path, help="a file that 'irsplit delta' wrote")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="NEW",
        help="folder or packed side of the new bundle; may be OLD",
    )
    add_public_key(parser)


def run(arguments: Namespace) -> int:
    """Apply a patch, and print the new build."""
    with progress() as show:
        manifest = apply_delta(
            arguments.old,
            arguments.patch,
            arguments.output,
            public_key=arguments.public_key,
            progress=show,
        )

    print(f"{arguments.output}  {manifest.name} {manifest.digest[:16]}")
    return 0
