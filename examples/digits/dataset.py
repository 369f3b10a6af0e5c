"""Scikit-learn's handwritten digits as 16x16 grey images of bytes, and the files of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from network import CLASSES, IMAGE_SIZE, Array

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

SOURCE_SIZE = 8
SOURCE_MAXIMUM = 16
HELD_OUT = 360
CALIBRATION = 64


@dataclass(frozen=True)
class Split:
    """Images [N, 16, 16] of bytes, 0 paper to 255 ink, and their digits."""

    images: Images
    labels: Labels


def load_splits(seed: int) -> tuple[Split, Split]:
    """Training and held-out split, every digit in the same share in both."""
    flat, digits = load_digits(return_X_y=True)
    source = np.asarray(flat, np.float64).reshape(-1, SOURCE_SIZE, SOURCE_SIZE)
    labels = np.asarray(digits, np.int64)
    train, held_out = train_test_split(
        np.arange(len(labels)), test_size=HELD_OUT, random_state=seed, stratify=labels
    )
    images = enlarge(source)
    return Split(images[train], labels[train]), Split(images[held_out], labels[held_out])


def enlarge(source: NDArray[np.float64]) -> Images:
    """Bilinear resize of [N, 8, 8] values in 0..16 to bytes, with aligned sample centres."""
    centres = (np.arange(IMAGE_SIZE) + 0.5) * SOURCE_SIZE / IMAGE_SIZE - 0.5
    distance = np.abs(centres.clip(0, SOURCE_SIZE - 1)[:, None] - np.arange(SOURCE_SIZE)[None, :])
    weights = np.maximum(1.0 - distance, 0.0)
    return np.rint(weights @ source @ weights.T * (255 / SOURCE_MAXIMUM)).astype(np.uint8)


def model_input(images: Images) -> Array:
    """Bytes [N, 16, 16] as the models take them: float32 [N, 16, 16, 1] in 0..1."""
    return images[..., None].astype(np.float32) / np.float32(255)


def write_samples(folder: Path, train: Split, held_out: Split) -> None:
    """The held-out split, some training images to calibrate with, and one picture file a digit."""
    np.savez_compressed(
        folder / "test_images.npz", images=held_out.images, labels=held_out.labels.astype(np.uint8)
    )
    np.savez_compressed(folder / "calibration_images.npz", images=train.images[:CALIBRATION])
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for digit in range(CLASSES):
        first = np.flatnonzero(held_out.labels == digit)[0]
        Image.fromarray(held_out.images[first]).save(pictures / f"{digit}.png")
