"""Runs the exported models one after the other on ONNX Runtime alone.

    python run.py INPUTS.npz OUTPUTS.npz

A host does the same in its own language: the device's models on the device, the server's on the
server, and frames between them.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

HERE = Path(__file__).parent


def main(source: str, target: str) -> None:
    """Run the models on the inputs in `source`, and write all outputs to `target`."""
    chain = json.loads((HERE / "models.json").read_text(encoding="utf-8"))
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(HERE / chain["operators"]))

    inputs: dict[str, Any] = dict(np.load(source))
    results: dict[str, Any] = {}
    frame = None
    for model in chain["models"]:
        session: Any = onnxruntime.InferenceSession(str(HERE / model["file"]), options)

        # The inputs of a model are inputs of the whole, states that begin with zeros, and the frame
        # of the model before it.
        values = dict(inputs)
        for state in model["state"]:
            values[state["input"]] = np.zeros(state["shape"], state["dtype"])
        values[model["frame_input"]] = frame
        feeds = {info.name: values[info.name] for info in session.get_inputs()}

        names = [info.name for info in session.get_outputs()]
        results.update(zip(names, session.run(names, feeds), strict=True))
        frame = results.pop(model["frame_output"], None)

    np.savez(target, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
