"""The exported models one after the other, on ONNX Runtime alone: python run.py INPUTS.npz OUTPUTS.npz

A host does the same in its language: the device's models on the device, the server's on the server, frames between.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

HERE = Path(__file__).parent


def main(source: str, target: str) -> None:
    chain = json.loads((HERE / "models.json").read_text(encoding="utf-8"))
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(HERE / chain["operators"]))
    inputs: dict[str, Any] = dict(np.load(source))
    results: dict[str, Any] = {}
    frame = None
    for model in chain["models"]:
        session: Any = onnxruntime.InferenceSession(str(HERE / model["file"]), options)
        values = inputs | {
            state["input"]: np.zeros(state["shape"], state["dtype"]) for state in model["state"]
        }
        values[model["frame_input"]] = frame
        names = [info.name for info in session.get_outputs()]
        outputs = session.run(
            names, {info.name: values[info.name] for info in session.get_inputs()}
        )
        results.update(zip(names, outputs, strict=True))
        frame = results.pop(model["frame_output"], None)
    np.savez(target, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
