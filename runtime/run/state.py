"""State that a segment takes as inputs and gives as outputs: what is kept between calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from irsplit.base.dtypes import BY_NAME
from irsplit.base.errors import BundleError
from irsplit.runtime.run.engines import Engine, EngineOptions, ModelFile, open_engine


@dataclass(frozen=True, slots=True)
class StateInfo:
    """A state by the names of the input that takes it and the output that gives it; at first zeros of `shape`."""

    input: str
    output: str
    dtype: str
    shape: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "input": self.input,
            "output": self.output,
            "dtype": self.dtype,
            "shape": list(self.shape),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "StateInfo":
        return cls(data["input"], data["output"], data["dtype"], tuple(data["shape"]))


class StateValues:
    """The current values of some states."""

    def __init__(self, infos: Sequence[StateInfo]) -> None:
        self._infos = tuple(infos)
        self.values: dict[str, Any] = {}
        """By the name of the input."""
        self.reset()

    def reset(self) -> None:
        """Back to zeros. Raises BundleError for elements of a type that has no zero here."""
        for info in self._infos:
            dtype = BY_NAME.get(info.dtype)
            if dtype is None or dtype.storage is None:
                raise BundleError(
                    f"state '{info.input}' of type {info.dtype} cannot be kept; leave it an input"
                )
            self.values[info.input] = np.zeros(info.shape, dtype.storage)

    def keep(self, outputs: Mapping[str, Any]) -> None:
        """Take over what a call gave."""
        self.values.update((info.input, outputs[info.output]) for info in self._infos)


class Segment(Protocol):
    """What `open_segment` must know of a segment: its format, its outputs without the state, and its state."""

    @property
    def format(self) -> str: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def state(self) -> tuple[StateInfo, ...]: ...


class StatefulEngine:
    """An engine that is fed its own state: in the file, states come behind the other inputs and outputs."""

    def __init__(self, engine: Engine, segment: Segment) -> None:
        self._engine = engine
        self._outputs = segment.outputs
        self._kept = [info.output for info in segment.state if info.output not in segment.outputs]
        self._states = StateValues(segment.state)
        self.optimized = engine.optimized

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[Any]:
        outputs = self._engine.run([*inputs, *self._states.values.values()])
        self._states.keep(dict(zip((*self._outputs, *self._kept), outputs, strict=True)))
        return outputs[: len(self._outputs)]

    def reset(self) -> None:
        self._engine.reset()
        self._states.reset()


def open_segment(file: ModelFile, segment: Segment, options: EngineOptions) -> Engine:
    """The engine of a segment's file, which keeps the segment's state between calls. Raises EngineError."""
    engine = open_engine(file, segment.format, options)
    return StatefulEngine(engine, segment) if segment.state else engine
