"""irsplit delta OLD NEW -o PATCH: write a patch between two builds of a bundle."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.commands.output import size
from irsplit.commands.progress import progress
from irsplit.compilation.delta import delta
from irsplit.ir.printer import PLACES

EXAMPLES = """
irsplit compile examples/digits/digits.onnx -o build/old
irsplit compile examples/digits/digits.onnx -o build/new --quantize int8 \
--calibration examples/digits/pictures
irsplit delta build/old build/new -o build/update.irsd --place device
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("old", type=Path, help="the bundle that devices have")
    parser.add_argument("new", type=Path, help="the bundle that devices get")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PATCH", help="file to write"
    )
    parser.add_argument(
        "--place", choices=PLACES, default="", help="only the files of this side; default: both"
    )

    parser.add_argument(
        "--sign",
        type=Path,
        metavar="KEY",
        help="sign the new build with an Ed25519 private key (PEM; needs irsplit[sign]); NEW keeps "
        "the signature, so that a server hands it out with every patch to this build",
    )


def run(arguments: Namespace) -> int:
    """Write the patch, and print what it costs."""
    with progress() as show:
        report = delta(
            arguments.old,
            arguments.new,
            arguments.output,
            arguments.place,
            sign_with=arguments.sign,
            progress=show,
        )

    patch, build = size(report.patch_bytes), size(report.new_bytes)
    print(
        f"{arguments.output}  {patch} for {build} in {report.files} files, "
        f"{report.unchanged_files} of them unchanged"
    )
    return 0
