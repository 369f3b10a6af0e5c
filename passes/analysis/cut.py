"""A cut: one position of a schedule, and what is known about it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from irsplit.ir import Node, TensorType, Value
from irsplit.passes.analysis.schedule import Schedule

CutKind = Literal["strict", "open", "frontier"]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """One position of a schedule: its first `position` runtime nodes run on the device side.

    A cut is legal when it has a `kind`:

    * strict: the one tensor that crosses lies on every path from every input to every output;
    * open: one tensor crosses, but graph inputs are forwarded in the frame, or graph outputs were
      already produced on the device side;
    * frontier: several tensors cross in one frame.
    """

    order: Schedule
    """The order that `position` counts in: the graph's own, or one with a better frontier."""
    position: int
    after: Node
    """The last node of the device side."""
    kind: CutKind | None
    """None when the cut is not legal; then `reason` says why."""
    explain: Callable[["Cut"], str] | None
    """Words the reason when somebody asks: most cuts of a large graph are never looked at."""
    tensors: tuple[Value, ...]
    """The produced values that cross, the oldest first. A rejected position with very many lists
    only some, and the newest."""
    crossing: int
    """How many produced values cross."""
    shapes: tuple[Value, ...]
    """Integers computed from shapes of device-side tensors, which travel beside `tensors`."""
    rematerialised: tuple[Value, ...]
    """Values that the server side reads and computes from what travels instead of receiving."""
    forwards: tuple[Value, ...]
    """Graph inputs that the server side reads."""
    early_outputs: tuple[Value, ...]
    """Graph outputs that the device side produces."""
    weight_bytes: int
    """Bytes of the constants that the device side reads, each counted once."""
    macs_share: float | None
    """Share of the multiply-accumulates on the device side, 0 to 1; None when there are none."""

    @property
    def legal(self) -> bool:
        """Whether `partition` can cut at this position."""
        return self.kind is not None

    @property
    def reason(self) -> str | None:
        """Why the cut is not legal, in a sentence that names values and nodes; None if it is."""
        return None if self.explain is None else self.explain(self)

    @property
    def id(self) -> str:
        """What a user calls the cut: the position, then the order's letters unless it is the
        graph's own."""
        return f"{self.position}{self.order.name}"

    @property
    def after_name(self) -> str:
        """The name of the node before the cut; without one, its first result or its operator."""
        if self.after.name:
            return self.after.name

        for value in self.after.outputs:
            if value is not None:
                return value.name
        return self.after.op

    @property
    def boundary(self) -> tuple[Value, ...]:
        """What travels, in frame order: produced values, shapes, forwarded graph inputs."""
        return self.tensors + self.shapes + self.forwards

    def size_bytes(self) -> int | None:
        """Return the raw bytes of the boundary; None when a dimension is open."""
        total = 0
        for value in self.boundary:
            # What is no tensor has no size; no frame carries it either.
            size = value.type.size_bytes() if isinstance(value.type, TensorType) else None
            if size is None:
                return None

            total += size
        return total

    @property
    def estimated_bytes(self) -> int:
        """Raw bytes of the boundary; an open dimension is as large as assumed, or 1."""
        return estimated_bytes(self.boundary)


def estimated_bytes(values: Iterable[Value]) -> int:
    """Return the bytes of tensors together.

    Args:
        values: Values of a model; those that are no tensors are left out. An open dimension is as
            large as its type assumes, or 1.
    """
    return sum(value.type.estimated_bytes for value in values if isinstance(value.type, TensorType))
