"""Measures by the words of `--agreement-measure`: built in, of other packages, or a function in a file."""

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
"""Functions of other packages, as FILE.py:function has them."""

BUILT_IN = {
    "top1": "the largest element of every row is in the same place",
    "iou": "label maps overlap (mean intersection over union of the classes)",
    "f1": "detections of one class overlap by half; f1@0.3: those with a score of 0.3",
}

Function = Callable[[Sequence[Outputs], Sequence[Outputs]], float]
"""The share, 0 to 1, in which outputs of some calls agree with the expected ones; each call is outputs by name."""


@dataclass(frozen=True, slots=True)
class FunctionHead:
    """All outputs, read by a function of the user."""

    measure: str
    outputs: tuple[str, ...]
    function: Function

    def score(self, expected: Sequence[Outputs], found: Sequence[Outputs]) -> Score:
        try:
            share = float(
                self.function([dict(call) for call in expected], [dict(call) for call in found])
            )
        except Exception as error:  # whatever a function of the user's raises is the user's to mend
            what = f"{type(error).__name__}: {error}"
            raise MeasureError(
                f"agreement measure '{self.measure}' failed: {what}; mend the function"
            ) from error
        if not 0 <= share <= 1:
            raise MeasureError(
                f"agreement measure '{self.measure}' gave {share}; a share is 0 to 1"
            )
        return Score(share, len(expected))


def heads_of(word: str, view: View) -> list[OutputHead]:
    """The heads of a model's outputs: as `word` says, or without one as the graph shows.

    Raises MeasureError for an unknown measure, and for one that can read none of the outputs.
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
            f"agreement measure '{word}' can read none of the outputs ({_described(view)}); give top1, or a function "
            "that reads them as FILE.py:function"
        )
    return heads


def check_measure(word: str) -> None:
    """Raises MeasureError for a word that names no measure."""
    name, at, least = word.partition("@")
    if name == "f1" and at:
        _score(word, least)
    elif word and word not in BUILT_IN:
        load_measure(word)


def measure_file(word: str) -> Path | None:
    """The file of FILE.py:function."""
    file, colon, _ = word.rpartition(":")
    return Path(file) if colon and file.endswith(".py") else None


def load_measure(word: str) -> Function:
    """The function of FILE.py:function, or of an entry point of that name. Raises MeasureError."""
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
    except Exception as error:  # whatever a foreign module does when it is imported
        raise MeasureError(
            f"agreement measure '{word}' of {points[word].value} cannot be loaded: {error}"
        ) from error


def _from_file(path: Path, name: str) -> Function:
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
        functions = [each for each, value in vars(module).items() if inspect.isfunction(value)]
        raise MeasureError(
            f"{path}: has no function '{name}'; it has {', '.join(functions) or 'none'}"
        )
    return function


def _detectors(view: View, least: float) -> list[DetectionHead]:
    """The detector that the graph shows, or else what the outputs look like."""
    heads = detection_heads(view, least)
    if heads:
        return heads
    reader = detections_in(view, view.outputs)
    return [] if reader is None else [DetectionHead(reader, least)]


def _score(word: str, text: str) -> float:
    try:
        least = float(text) if "@" in word else 0.0
    except ValueError:
        least = -1.0
    if not 0 <= least <= 1:
        raise MeasureError(f"agreement measure '{word}': a score is 0 to 1, as in f1@0.3")
    return least


def _described(view: View) -> str:
    return ", ".join(f"{name} {list(view.array(name).shape)}" for name in view.outputs)
