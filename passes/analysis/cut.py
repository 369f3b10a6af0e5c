"""A cut: one position of a schedule, and what is known about it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from irsplit.ir import Node, TensorType, Value
from irsplit.passes.analysis.schedule import Schedule

CutKind = Literal["strict", "open", "frontier"]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """One position of a schedule: the first `position` runtime nodes are near, the others far.

    `kind` is None and `reason` a sentence when the cut is not legal. `strict`: the one tensor lies on every path from
    every input to every output. `open`: one tensor, but graph inputs are forwarded in the frame or graph outputs were
    already produced on the near side. `frontier`: several tensors that travel in one frame.
    """

    order: Schedule
    """The order that `position` counts in: the graph's own, or another one that shows a better frontier."""
    position: int
    after: Node
    kind: CutKind | None
    explain: Callable[["Cut"], str] | None
    """Words the reason: only when somebody asks, because most cuts of a large graph are never looked at."""
    tensors: tuple[Value, ...]
    """The produced values that cross, the oldest first; of very many at a rejected position, some and the newest."""
    crossing: int
    """How many produced values cross."""
    shapes: tuple[Value, ...]
    """Integers computed from shapes of near tensors alone, a few bytes that travel beside `tensors`."""
    rematerialised: tuple[Value, ...]
    """Values that the far side reads and computes again from what travels, instead of receiving them."""
    forwards: tuple[Value, ...]
    early_outputs: tuple[Value, ...]
    weight_bytes: int
    """Bytes of the constants that the near side reads, each counted once."""
    macs_share: float | None
    """Share of the multiply-accumulate operations on the near side, 0 to 1; None when the graph counts none."""

    @property
    def legal(self) -> bool:
        """Whether `partition` can cut here."""
        return self.kind is not None

    @property
    def reason(self) -> str | None:
        """Why the cut is not legal: which value is pending, where it forks, where it joins; or what cannot be cut."""
        return None if self.explain is None else self.explain(self)

    @property
    def id(self) -> str:
        """What a user calls the cut: its position, and the letters of its order when that is not the graph's own."""
        return f"{self.position}{self.order.name}"

    @property
    def after_name(self) -> str:
        """The name of the node before the cut; without one, that of its first result, or its operator."""
        return self.after.name or next(
            (v.name for v in self.after.outputs if v is not None), self.after.op
        )

    @property
    def boundary(self) -> tuple[Value, ...]:
        """What travels in the frame, in frame order: the produced values, shapes, then the forwarded graph inputs."""
        return self.tensors + self.shapes + self.forwards

    def size_bytes(self) -> int | None:
        """Raw bytes of the boundary; None when a dimension is open."""
        sizes = [
            value.type.size_bytes() for value in self.boundary if isinstance(value.type, TensorType)
        ]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(self.boundary) else None

    @property
    def estimated_bytes(self) -> int:
        """Raw bytes of the boundary; an open dimension is as large as assumed, or 1."""
        return estimated_bytes(self.boundary)


def estimated_bytes(values: Iterable[Value]) -> int:
    """Bytes of tensors together; an open dimension is as large as assumed, or 1."""
    return sum(value.type.estimated_bytes for value in values if isinstance(value.type, TensorType))
