"""irsplit inspect BUNDLE|MODEL: show what a model or a bundle holds."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from irsplit.base.errors import short
from irsplit.commands.output import print_json, size, table
from irsplit.dialects.registry import read_model
from irsplit.ir import print_model
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.store import is_bundle
from irsplit.runtime.frame.descriptor import QuantizationSpec, TensorSpec, zstandard_level

EXAMPLES = """
irsplit inspect examples/digits/digits.onnx
irsplit compile examples/digits/digits.onnx -o build/digits
irsplit inspect build/digits --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "path",
        type=Path,
        help="a model file, which is printed as IR text, or a bundle (its folder or a packed "
        "side), which is printed as a table",
    )
    parser.add_argument("--json", action="store_true", help="print the manifest of a bundle")


def run(arguments: Namespace) -> int:
    """Print a model as IR text, or a bundle as tables or JSON."""
    if not is_bundle(arguments.path):
        print(print_model(read_model(arguments.path)), end="")
        return 0

    manifest = Manifest.load(arguments.path)
    if arguments.json:
        print_json(manifest.raw)
        return 0

    _print_bundle(manifest)
    return 0


def _print_bundle(manifest: Manifest) -> None:
    """Print the source, a table of the segments, and the tensors of every boundary."""
    source = manifest.raw["source"]
    origin = f"{source['file']}, {source['dialect']}"
    print(f"bundle {manifest.name} ({manifest.digest[:16]}) of {origin}")
    print(f"pipeline {manifest.raw['pipeline']}\n")

    header = ("segment", "place", "file", "size", "inputs", "outputs")
    print(table(header, [_segment_row(manifest, index) for index in range(len(manifest.segments))]))

    for boundary in manifest.boundaries:
        print(f"\n{boundary}")
        for spec in boundary.tensors:
            shape = ",".join("?" if dim is None else str(dim) for dim in spec.shape)
            coding = f"{_codec(spec)}, {_quantization(spec.quantization)}"
            print(f"  {short(spec.name)}: {spec.dtype}[{shape}], {coding}")


def _codec(spec: TensorSpec) -> str:
    """Describe a codec, with the level of zstandard."""
    if spec.codec != "zstandard":
        return spec.codec
    dictionary = " with a dictionary" if spec.parameters[1:] else ""
    return f"zstandard level {zstandard_level(spec.parameters)}{dictionary}"


def _quantization(quantization: QuantizationSpec | None) -> str:
    """Describe bits and scales of a quantization."""
    if quantization is None:
        return "not quantized"

    low, high = min(quantization.scales), max(quantization.scales)
    scales = f"scale {low:.4g}"
    if low != high:
        scales = f"{len(quantization.scales)} scales of {low:.4g} to {high:.4g}"
    outliers = ", outliers exact" if quantization.outliers else ""
    return f"{quantization.bits} bits, {scales}{outliers}"


def _segment_row(manifest: Manifest, index: int) -> tuple[str, ...]:
    """Return the cells of a segment; its file may be absent from a packed side."""
    segment = manifest.segments[index]
    file = manifest.file(index)
    count = None if file is None else manifest.store.size(file)
    return (
        segment.name,
        segment.placement,
        file or segment.file,
        "absent" if count is None else size(count),
        ", ".join(segment.inputs),
        ", ".join(dict.fromkeys((*segment.outputs, *segment.results))),
    )
