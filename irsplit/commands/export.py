"""irsplit export BUNDLE --to ENGINE -o DIR: write what an existing engine runs."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.commands.engine import add_engine, engine_options
from irsplit.export import ENGINES, export_bundle
from irsplit.runtime.bundle.manifest import Manifest

EXAMPLES = """
irsplit compile examples/digits/digits.onnx -o build/digits
irsplit export build/digits --to ray-serve -o build/ray
irsplit export build/digits --to triton --replicas 2 -o build/models
irsplit export build/digits --to triton --provider cuda,device_id=0 -o build/models
irsplit export build/digits --to kserve --image registry.example/digits:1 -o build/kserve
irsplit compile examples/digits/digits.onnx -o build/raw --codec raw
irsplit export build/raw --to onnxruntime -o build/ort
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "bundle",
        type=Path,
        help="a folder that 'irsplit compile' wrote, or a packed server side (not for onnxruntime)",
    )
    parser.add_argument(
        "--to",
        choices=ENGINES,
        required=True,
        dest="engine",
        help="what runs it: an engine for the server side, or ONNX Runtime for both sides without "
        "irsplit",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write; for Triton, the model repository",
    )
    parser.add_argument(
        "--name", default="", help="name of the model in the engine; default: the bundle's"
    )

    # How it runs there.
    parser.add_argument(
        "--replicas",
        type=int,
        default=4,
        metavar="N",
        help="how many replicas at most (Triton: always); default 4, and 1 for bundles with state",
    )
    parser.add_argument(
        "--image", default="irsplit:latest", help="KServe's container image; default irsplit:latest"
    )
    add_engine(parser)


def run(arguments: Namespace) -> int:
    """Export the bundle, and print the files."""
    options = engine_options(arguments, Manifest.load(arguments.bundle).segments[0].format)
    folder = export_bundle(
        arguments.bundle,
        arguments.engine,
        arguments.output,
        arguments.name,
        arguments.replicas,
        arguments.image,
        options,
    )

    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(path)
    return 0
