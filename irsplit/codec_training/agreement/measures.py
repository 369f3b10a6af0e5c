"""Find the measure of a word of `--agreement-measure`.

A measure is built in, a function of another package by entry point, or a function in a file.
"""

import importlib.util
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from irsplit.base.entry_points import entry_points
from irsplit.base.errors import MeasureError
from irsplit.codec_training.agreement.base import OutputHead, Outputs, Score
from irsplit.codec_training.agreement.f1 import DetectionHead
from irsplit.codec_training.agreement.recognise import (
    View,
    detection_heads,
    detections_in,
    label_map,
    recognised,
)
from irsplit.codec_training.agreement.top1 import Top1

ENTRY_POINTS = "irsplit.measures"
"""The entry points at which other packages register functions, like that of FILE.py:function."""

BUILT_IN = {
    "top1": "the largest element of every row is in the same place",
    "iou": "label maps overlap (mean intersection over union of the classes)",
    "f1": "detections of one class overlap by half; f1@0.3: those with a score of 0.3",
}

Function = Callable[[Sequence[Outputs], Sequence[Outputs]], float]
"""Takes the expected outputs of some calls and those that were found, each call by name. Returns
the share, 0 to 1, in which they agree."""


@dataclass(frozen=True, slots=True)
class FunctionHead:
    """All outputs of a model, compared by a function of the user.

    Attributes:
        measure: The word that names the function.
        outputs: Names of the outputs.
        function: Compares them.
    """

    measure: str
    outputs: tuple[str, ...]
    function: Function

    def score(self, expected: Sequence[Outputs], found: Sequence[Outputs]) -> Score:
        """Call the function; see `OutputHead.score`.

        Raises:
            MeasureError: The function fails, or returns no share.
        """
        try:
            share = float(
                self.function([dict(call) for call in expected], [dict(call) for call in found])
            )
        except Exception as error:  # the function is the user's, and so is what it raises
            what = f"{type(error).__name__}: {error}"
            raise MeasureError(
                f"agreement measure '{self.measure}' failed: {what}; correct the function"
            ) from error
        if not 0 <= share <= 1:
            raise MeasureError(
                f"agreement measure '{self.measure}' gave {share}; a share is 0 to 1"
            )
        return Score(share, len(expected))


def heads_of(word: str, view: View) -> list[OutputHead]:
    """Return the heads of a model's outputs.

    Args:
        word: The measure; "" for what the graph shows.
        view: The model and the outputs of one call.

    Returns:
        One head or more; together they need not read all outputs.

    Raises:
        MeasureError: The measure is unknown, or can read none of the outputs.
    """
    name, _, least = word.partition("@")
    if not word:
        return recognised(view)
    if word == "top1":
        return [Top1(output) for output in view.outputs]

    if word == "iou":
        maps = [label_map(view, output) for output in view.outputs]
        heads: list[OutputHead] = [head for head in maps if head is not None]
    elif name == "f1":
        heads = [*_detectors(view, _score(word, least))]
    else:
        heads = [FunctionHead(word, view.outputs, load_measure(word))]

    if not heads:
        raise MeasureError(
            f"agreement measure '{word}' can read none of the outputs ({_described(view)}); "
            "give top1, or a function that reads them as FILE.py:function"
        )
    return heads


def check_measure(word: str) -> None:
    """Raise MeasureError for a word that names no measure; "" is allowed."""
    name, at, least = word.partition("@")
    if name == "f1" and at:
        _score(word, least)
    elif word and word not in BUILT_IN:
        load_measure(word)


def measure_file(word: str) -> Path | None:
    """Return the file of FILE.py:function, None for any other word."""
    file, colon, _ = word.rpartition(":")
    return Path(file) if colon and file.endswith(".py") else None


def load_measure(word: str) -> Function:
    """Load the function of FILE.py:function, or of an entry point.

    Args:
        word: The file and the function, or the name of the entry point.

    Raises:
        MeasureError: There is no such function, or it cannot be loaded.
    """
    path = measure_file(word)
    if path is not None:
        return _from_file(path, word.rpartition(":")[2])

    points = {point.name: point for point in entry_points(ENTRY_POINTS)}
    if word not in points:
        known = ", ".join((*BUILT_IN, *points))
        raise MeasureError(
            f"unknown agreement measure '{word}'; known: {known}, or FILE.py:function"
        )
    try:
        return points[word].load()
    except Exception as error:  # another package may raise anything when it is imported
        raise MeasureError(
            f"agreement measure '{word}' of {points[word].value} cannot be loaded: {error}"
        ) from error


def _from_file(path: Path, name: str) -> Function:
    """Run a file and return one of its functions. Raises MeasureError."""
    if not path.is_file():
        raise MeasureError(f"{path}: no such file; give an agreement measure as FILE.py:function")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file is the user's, and so is what it raises
        raise MeasureError(f"{path}: cannot be run: {type(error).__name__}: {error}") from error

    function: Function | None = getattr(module, name, None)
    if not callable(function):
        names = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise MeasureError(f"{path}: has no function '{name}'; it has {', '.join(names) or 'none'}")
    return function


def _detectors(view: View, least: float) -> list[DetectionHead]:
    """The detector that the graph shows, or else what the outputs look like."""
    heads = detection_heads(view, least)
    if heads:
        return heads
    reader = detections_in(view, view.outputs)
    return [] if reader is None else [DetectionHead(reader, least)]


def _score(word: str, text: str) -> float:
    """The least score of f1@SCORE; 0 without one. Raises MeasureError for what is no score."""
    try:
        least = float(text) if "@" in word else 0.0
    except ValueError:
        least = -1.0
    if not 0 <= least <= 1:
        raise MeasureError(f"agreement measure '{word}': a score is 0 to 1, as in f1@0.3")
    return least


def _described(view: View) -> str:
    return ", ".join(f"{name} {list(view.array(name).shape)}" for name in view.outputs)
