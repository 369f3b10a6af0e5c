"""The main job on the example: compile both formats, run them split, compare with the whole model.

python examples/digits/demo.py [FOLDER]     bundles go to FOLDER, by default build/demo
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import irsplit
from irsplit.compilation.compiler import whole_model
from irsplit.engines.execute import run_whole
from irsplit.runtime.run.engines import DEFAULT_OPTIONS

HERE = Path(__file__).parent


def main() -> None:
    build = Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo")
    images = np.load(HERE / "test_images.npz")
    pixels = (images["images"] / 255).astype(np.float32)
    calibration = (np.load(HERE / "calibration_images.npz")["images"] / 255).astype(np.float32)
    print(
        "model          boundary codec       cut after         input    raw     frame  accuracy "
        "whole -> split"
    )
    for name in ("digits.onnx", "digits.tflite"):
        axis = 1 if name.endswith(".onnx") else -1
        calls = [{"image": np.expand_dims(image, (0, axis))} for image in pixels]
        whole, _ = whole_model(HERE / name)
        expected, _ = run_whole(whole, calls, DEFAULT_OPTIONS)
        for boundary, codec in (
            ("lossless", "zstandard"),
            ("lossless", "static-rans"),
            ("int8", "static-rans"),
        ):
            folder = build / f"{name.replace('.', '-')}-{boundary}-{codec}"
            samples = [{"image": np.expand_dims(image, (0, axis))} for image in calibration]
            bundle = irsplit.compile(
                HERE / name, folder, quantize=boundary, codec=codec, calibration=samples
            ).manifest
            device, server = irsplit.DeviceSession(folder), irsplit.ServerSession(folder)
            frames = [device.start(call) for call in calls]
            found = [server.resume(frame) for frame in frames]
            tensor = bundle.boundaries[0].tensors[0]
            raw = int(np.prod([dim or 1 for dim in tensor.shape])) * tensor.storage.itemsize
            size = sum(map(len, frames)) / len(frames)
            sizes = f"{calls[0]['image'].nbytes} B  {raw} B  {size:5.1f} B"
            right = f"{accuracy(expected, images['labels'])} -> {accuracy(found, images['labels'])}"
            print(f"{name:14} {boundary:8} {codec:11} {tensor.name:16}  {sizes}  {right}")
    print(f"\nbundles are in {build}; try:  irsplit verify {build}/digits-onnx-lossless-zstandard")


def accuracy(outputs: Sequence[Mapping[str, Any]], labels: Sequence[int]) -> str:
    correct = sum(
        int(np.argmax(output["logits"]) == label)
        for output, label in zip(outputs, labels, strict=True)
    )
    return f"{correct}/{len(labels)}"


if __name__ == "__main__":
    main()
