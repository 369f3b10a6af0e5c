"""The same split by other tools; as a script like onnx_split.py, for the optional group `bench`.

python -m benchmarks.onnx_peers extract-model|onnx-ir SOURCE FOLDER CUT
"""

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx
from onnx.utils import extract_model

from benchmarks.onnx_split import PLACES, peak_bytes


def with_onnx(source: Path, folder: Path, cut: str) -> None:
    """`onnx.utils.extract_model`, once a half, without the model check that fails over 2 GB."""
    ends = onnx.load(source, load_external_data=False).graph
    first, last = [value.name for value in ends.input], [value.name for value in ends.output]
    for place, inputs, outputs in ((PLACES[0], first, [cut]), (PLACES[1], [cut], last)):
        extract_model(
            str(source), str(folder / f"{place}.onnx"), inputs, outputs, check_model=False
        )


def with_onnx_ir(source: Path, folder: Path, cut: str) -> None:
    """`onnx_ir.convenience.extract`; weights stay where they were, in the model or beside it."""
    onnx_ir: Any = import_module("onnx_ir")  # not installed where the linter runs
    model = onnx_ir.load(source)
    first, last = (
        [value.name for value in model.graph.inputs],
        [value.name for value in model.graph.outputs],
    )
    external = any(
        isinstance(value.const_value, onnx_ir.ExternalTensor)
        for value in model.graph.initializers.values()
    )
    for place, inputs, outputs in ((PLACES[0], first, [cut]), (PLACES[1], [cut], last)):
        half = onnx_ir.Model(
            onnx_ir.convenience.extract(model.graph, inputs, outputs), ir_version=model.ir_version
        )
        data = f"{place}.onnx.data" if external else None
        onnx_ir.save(half, folder / f"{place}.onnx", external_data=data)


METHODS: dict[str, Callable[[Path, Path, str], None]] = {
    "extract-model": with_onnx,
    "onnx-ir": with_onnx_ir,
}


def main() -> None:
    if len(sys.argv) != 5:
        sys.exit(f"usage: {sys.argv[0]} METHOD SOURCE FOLDER CUT")
    start = time.perf_counter()
    METHODS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    print(json.dumps({"seconds": time.perf_counter() - start, "peak": peak_bytes()}))


if __name__ == "__main__":
    main()
