"""State that a segment takes as inputs and gives as outputs: what is kept between calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from irsplit.base.dtypes import BY_NAME
from irsplit.base.errors import BundleError, EngineError
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

    def __post_init__(self) -> None:
        if any(dim < 0 for dim in self.shape):
            raise ValueError(f"state '{self.input}' has a negative dimension")


class StateValues:
    """The current values of some states."""

    def __init__(self, infos: Sequence[StateInfo]) -> None:
        self._infos = tuple(infos)
        self.values: dict[str, Any] = {}
        """By the name of the input."""
        self.reset()

    def reset(self) -> None:
        """Back to zeros. Raises BundleError for a type that has no zero here, and for a state larger than memory."""
        for info in self._infos:
            dtype = BY_NAME.get(info.dtype)
            if dtype is None or dtype.storage is None:
                raise BundleError(
                    f"state '{info.input}' of type {info.dtype} cannot be kept; leave it an input"
                )
            try:
                self.values[info.input] = np.zeros(info.shape, dtype.storage)
            except (MemoryError, ValueError) as error:
                text = f"state '{info.input}' of shape {list(info.shape)} is too large for this machine"
                raise BundleError(
                    f"{text}; give other sizes with 'irsplit compile --dim'"
                ) from error

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


def named_outputs(segment: Segment, outputs: Sequence[Any]) -> dict[str, Any]:
    """What a segment's engine gave, by name. Raises EngineError when the file is not the one that was described."""
    if len(outputs) != len(segment.outputs):
        raise _unlike(len(outputs), len(segment.outputs))
    return dict(zip(segment.outputs, outputs, strict=True))


def _unlike(count: int, described: int) -> EngineError:
    return EngineError(
        f"a segment gave {count} outputs, its manifest has {described}; compile the bundle again"
    )


class StatefulEngine:
    """An engine that is fed its own state: in the file, states come behind the other inputs and outputs."""

    def __init__(self, engine: Engine, segment: Segment) -> None:
        self._engine = engine
        self._outputs = segment.outputs
        self._kept = [info.output for info in segment.state if info.output not in segment.outputs]
        self._states = StateValues(segment.state)
        self.optimized = engine.optimized

    def run(self, inputs: Sequence[NDArray[Any]], large: bool = False) -> list[Any]:
        outputs = self._engine.run([*inputs, *self._states.values.values()], large)
        names = (*self._outputs, *self._kept)
        if len(outputs) != len(names):
            raise _unlike(len(outputs), len(names))
        self._states.keep(dict(zip(names, outputs, strict=True)))
        return outputs[: len(self._outputs)]

    @property
    def state_bytes(self) -> int:
        return sum(value.nbytes for value in self._states.values.values())

    def reset(self) -> None:
        self._engine.reset()
        self._states.reset()


def open_segment(file: ModelFile, segment: Segment, options: EngineOptions) -> Engine:
    """The engine of a segment's file, which keeps the segment's state between calls. Raises EngineError."""
    engine = open_engine(file, segment.format, options)
    return StatefulEngine(engine, segment) if segment.state else engine
