"""What a manifest says of tensors, of state and of segments."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from irsplit.base.reading import record


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output of a segment or of the whole model.

    Attributes:
        name: Its name in the original model.
        dtype: Its element type, as in `irsplit.base.dtypes`.
        shape: Its dimensions, None for an open one; None where even the rank is unknown.
        symbols: The model's names of open dimensions, by axis. A symbol stands for one size
            wherever it occurs. Not compared, and written in one place for the whole manifest.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    symbols: dict[int, str] = field(default_factory=dict[int, str], compare=False)

    def to_json(self) -> dict[str, Any]:
        """Name, type and shape; the manifest's own key `symbols` has the symbols of all tensors."""
        shape = None if self.shape is None else list(self.shape)
        return {"name": self.name, "dtype": self.dtype, "shape": shape}

    def __post_init__(self) -> None:
        _check_dims(f"'{self.name}'", self.shape or ())


@dataclass(frozen=True, slots=True)
class StateInfo:
    """A state that a segment takes as an input and gives as an output; it begins as zeros.

    Attributes:
        input: The name of the input that takes the state.
        output: The name of the output that gives the state for the next call.
        dtype: Its element type.
        shape: Its dimensions, all of them known.
    """

    input: str
    output: str
    dtype: str
    shape: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """The description as manifests have it."""
        return {
            "input": self.input,
            "output": self.output,
            "dtype": self.dtype,
            "shape": list(self.shape),
        }

    def __post_init__(self) -> None:
        _check_dims(f"state '{self.input}'", self.shape)


def _check_dims(what: str, dims: Iterable[int | None]) -> None:
    """Raise ValueError for a negative size, which a damaged manifest may have."""
    for dim in dims:
        if dim is not None and dim < 0:
            raise ValueError(f"{what} has a negative dimension")


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """One segment of a bundle: where it runs, and what its model file reads and gives.

    Attributes:
        name: The segment's name.
        placement: Where it runs: "device" or "server".
        file: Its model file, by the path in the bundle.
        format: The file's format, which names the engine that opens it.
        inputs: Names of the file's inputs in the file's order, without the state.
        outputs: Names of the file's outputs in the file's order, without the state.
        results: The outputs of the whole model that are complete after this segment.
        stateful: Whether it keeps state between calls and must see a stream's calls in order.
        copies: The same file at other placements. The device of an autonomous bundle can run what
            the server runs.
        state: The state that the session keeps. It is no input of the caller, crosses in no frame
            and is no result.
    """

    name: str
    placement: str
    file: str
    format: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    results: tuple[str, ...]
    stateful: bool = False
    copies: dict[str, str] = field(default_factory=dict[str, str])
    state: tuple[StateInfo, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The description as manifests have it."""
        return {
            "name": self.name,
            "place": self.placement,
            "file": self.file,
            "format": self.format,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "results": list(self.results),
            "stateful": self.stateful,
            "copies": self.copies,
            "state": [[info.input, info.output] for info in self.state],
            "state_tensors": [info.to_json() for info in self.state],
        }

    @classmethod
    def from_json(cls, data: Any) -> "SegmentInfo":
        """The inverse of `to_json`.

        Raises:
            ValueError: The data describes no segment; the text names the key that is wrong.
        """
        if not isinstance(data, dict):
            raise ValueError("a segment is no object")

        # Manifests have other names for two of the fields.
        fields = dict(cast("dict[str, Any]", data))

        fields["placement"] = fields.get("place")
        fields["state"] = fields.get("state_tensors", [])
        return record(cls, fields, others=True)
