"""Makes the models of bench_split_onnx.py and checks irsplit on them; prints the cases as JSON.

python -m benchmarks.onnx_cases FOLDER SCALE
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.onnx_models import SEED, SEQUENCE, Transformer, write_chain, write_transformer
from benchmarks.onnx_split import split_with_irsplit
from irsplit.dialects.onnx import ONNX

BLOCK = 1 << 24


def make(folder: Path, scale: int) -> list[tuple[str, str, str, list[str]]]:
    """Name, source, tensor to cut at and options of every case."""
    large = Transformer(24, 1024 if scale == 1 else 144)
    larger = Transformer(60, 1024 if scale == 1 else 144)
    inline, external = folder / "inline.onnx", folder / "external.onnx"
    write_transformer(large, inline, inline=True)
    write_transformer(larger, external, inline=False)
    cases = [
        ("inline", str(inline), large.middle, list[str]()),
        ("external", str(external), larger.middle, list[str]()),
        ("shared", str(external), larger.middle, ["--share-weights"]),
    ]
    for _, source, cut, options in cases:
        check_weights(Path(source), cut, bool(options))
    for nodes in (1_000, 10_000, 50_000) if scale == 1 else (1_000,):
        path = folder / f"{nodes}.onnx"
        write_chain(nodes, path)
        cases.append(
            (f"graph of {nodes} nodes", str(path), f"/layers.{nodes // 10}/Sum_output_0", [])
        )
    return cases


def check_weights(source: Path, cut: str, shared: bool) -> None:
    """The halves hold every weight of the source bit for bit, once; two shared shapes, twice."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        halves = [
            ONNX.read(path).entry for path in split_with_irsplit(source, Path(folder), cut, shared)
        ]
        found = {value.name: value.constant for half in halves for value in half.constants}
        whole = ONNX.read(source).entry.constants
        for value in whole:
            ours, theirs = found[value.name], value.constant
            if ours is None or theirs is None or not same_bytes(ours.view(), theirs.view()):
                sys.exit(f"error: weight {value.name} of {source.name} is not what it was")
        if sum(len(half.constants) for half in halves) != len(whole) + 2:
            sys.exit(f"error: the halves of {source.name} do not have the weights of the whole")


def same_bytes(left: memoryview, right: memoryview) -> bool:
    return len(left) == len(right) and all(
        np.array_equal(left[start : start + BLOCK], right[start : start + BLOCK])
        for start in range(0, len(left), BLOCK)
    )


def check_results(folder: Path) -> None:
    """The halves of a small transformer must give the bits of the whole, wherever weights lie."""
    case = Transformer(4, 64)
    value: Any = np.random.default_rng(SEED).standard_normal((1, SEQUENCE, case.hidden), np.float32)
    for inline, shared in ((True, False), (False, False), (False, True)):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            source = Path(place) / "small.onnx"
            write_transformer(case, source, inline=inline)
            halves = Path(place) / "halves"
            halves.mkdir()
            whole = infer(source, value)
            split = value
            for path in split_with_irsplit(source, halves, case.middle, shared):
                split = infer(path, split)
            if whole.tobytes() != split.tobytes():
                sys.exit("error: the halves are not the whole model")


def infer(path: Path, value: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: value})[0]


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} FOLDER SCALE")
    folder = Path(sys.argv[1])
    check_results(folder)
    print(json.dumps(make(folder, int(sys.argv[2]))))


if __name__ == "__main__":
    main()
