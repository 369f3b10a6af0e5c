"""Train the digit classifier and write all files of this folder: `examples/digits/train.py`.

Seeded and on one BLAS thread, so that the same machine and library versions give the same bytes.
"""

import argparse
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from dataset import CALIBRATION, Images, Split, load_splits, model_input, write_samples
from export_onnx import onnx_bytes
from export_tflite import tflite_bytes, tflite_int8_bytes
from network import Gradients, Parameters, forward, initial_parameters, loss_and_gradients

SEED = 0
EPOCHS = 30
BATCH = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-4
LARGEST_SHIFT = 1


class Adam:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019); biases do not decay."""

    def __init__(self, parameters: Parameters) -> None:
        self.steps = 0
        self.mean = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.square = {name: np.zeros_like(value) for name, value in parameters.items()}

    def step(self, parameters: Parameters, gradients: Gradients, rate: float) -> None:
        self.steps += 1
        for name, gradient in gradients.items():
            self.mean[name] += 0.1 * (gradient - self.mean[name])
            self.square[name] += 0.001 * (gradient * gradient - self.square[name])
            mean = self.mean[name] / (1 - 0.9**self.steps)
            square = self.square[name] / (1 - 0.999**self.steps)
            parameters[name] -= np.float32(rate) * mean / (np.sqrt(square) + np.float32(1e-8))
            if name.endswith("/weights"):
                parameters[name] *= np.float32(1 - rate * WEIGHT_DECAY)


def shifted(images: Images, generator: np.random.Generator) -> Images:
    """Every image moved by its own random number of pixels, up to LARGEST_SHIFT each way."""
    size = images.shape[1]
    padded = np.pad(
        images, ((0, 0), (LARGEST_SHIFT, LARGEST_SHIFT), (LARGEST_SHIFT, LARGEST_SHIFT))
    )
    corners = generator.integers(0, 2 * LARGEST_SHIFT + 1, (len(images), 2))
    rows, columns = (corners[:, axis, None] + np.arange(size) for axis in (0, 1))
    return padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def accuracy(parameters: Parameters, split: Split) -> float:
    return float(
        (forward(parameters, model_input(split.images)).argmax(axis=1) == split.labels).mean()
    )


def train(train_split: Split, epochs: int, seed: int) -> Parameters:
    generator = np.random.default_rng(seed)
    parameters = initial_parameters(generator)
    optimizer = Adam(parameters)
    batches = -(-len(train_split.labels) // BATCH)
    for epoch in range(epochs):
        losses: list[float] = []
        for chosen in np.array_split(generator.permutation(len(train_split.labels)), batches):
            images = model_input(shifted(train_split.images[chosen], generator))
            loss, gradients = loss_and_gradients(parameters, images, train_split.labels[chosen])
            progress = optimizer.steps / (epochs * batches)
            optimizer.step(
                parameters, gradients, LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * progress))
            )
            losses.append(loss)
        print(f"epoch {epoch + 1:2d}/{epochs}  loss {np.mean(losses):.4f}", flush=True)
    return parameters


def write_models(folder: Path, parameters: Parameters, calibration: Images) -> None:
    (folder / "digits.onnx").write_bytes(onnx_bytes(parameters))
    (folder / "digits.tflite").write_bytes(tflite_bytes(parameters))
    (folder / "digits_int8.tflite").write_bytes(
        tflite_int8_bytes(parameters, model_input(calibration))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent,
        help="folder to write to (default: here)",
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    train_split, held_out = load_splits(SEED)
    with threadpool_limits(1):
        parameters = train(train_split, options.epochs, SEED)
        print(
            f"held-out accuracy {accuracy(parameters, held_out):.4f} of {len(held_out.labels)} "
            "images"
        )
        write_models(options.output, parameters, train_split.images[:CALIBRATION])
    write_samples(options.output, train_split, held_out)


if __name__ == "__main__":
    main()
