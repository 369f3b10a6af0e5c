"""irsplit inspect BUNDLE|MODEL"""

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
    parser.add_argument(
        "path",
        type=Path,
        help="a model file (printed as IR text) or a bundle, its folder or a packed side (printed as a table)",
    )
    parser.add_argument("--json", action="store_true", help="print the manifest of a bundle")


def run(arguments: Namespace) -> int:
    if not is_bundle(arguments.path):
        print(print_model(read_model(arguments.path)), end="")
        return 0
    manifest = Manifest.load(arguments.path)
    if arguments.json:
        print_json(manifest.raw)
        return 0
    source = manifest.raw["source"]
    print(
        f"bundle {manifest.name} ({manifest.digest[:16]}) of {source['file']}, {source['dialect']}"
    )
    print(f"pipeline {manifest.raw['pipeline']}\n")
    header = ("segment", "place", "file", "size", "inputs", "outputs")
    print(table(header, [_segment_row(manifest, index) for index in range(len(manifest.segments))]))
    for boundary in manifest.boundaries:
        print(f"\n{boundary}")
        for spec in boundary.tensors:
            shape = ",".join("?" if dim is None else str(dim) for dim in spec.shape)
            print(
                f"  {short(spec.name)}: {spec.dtype}[{shape}], {_codec(spec)}, {_quantization(spec.quantization)}"
            )
    return 0


def _codec(spec: TensorSpec) -> str:
    if spec.codec != "zstandard":
        return spec.codec
    return f"zstandard level {zstandard_level(spec.parameters)}{' with a dictionary' if spec.parameters[1:] else ''}"


def _quantization(found: QuantizationSpec | None) -> str:
    if found is None:
        return "not quantized"
    low, high = min(found.scales), max(found.scales)
    scales = (
        f"scale {low:.4g}"
        if low == high
        else f"{len(found.scales)} scales of {low:.4g} to {high:.4g}"
    )
    return f"{found.bits} bits, {scales}{', outliers exact' if found.outliers else ''}"


def _segment_row(manifest: Manifest, index: int) -> tuple[str, ...]:
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
