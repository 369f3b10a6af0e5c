"""What crosses at every position of a schedule, and why a position is no legal cut.

A sweep moves the cut from the inputs to the outputs, one node at a time. On its way it keeps the
values that are live, the graph inputs that are still to be read, the outputs that are ready, and
the states that are open, so that a position costs no more than what changes there.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

from irsplit.ir import Node, Value
from irsplit.passes.analysis.cut import Cut
from irsplit.passes.analysis.live_values import LiveValues
from irsplit.passes.analysis.reasons import (
    Branches,
    SplitStates,
    crowded,
    framable,
    independent,
    repeated,
    unframable,
)
from irsplit.passes.analysis.recompute import Recompute, size_bytes
from irsplit.passes.analysis.schedule import Schedule
from irsplit.runtime.frame.limits import MAX_TENSORS

LISTED = 32
"""A rejected position lists at most this many of the values that would cross it."""


class Boundary(NamedTuple):
    """What the server side of one position reads, and why the position is not legal."""

    sent: tuple[Value, ...]
    """The produced values; of very many, some and the newest."""
    crossing: int
    """How many produced values are to be sent."""
    shapes: tuple[Value, ...]
    recomputed: tuple[Value, ...]
    forwards: tuple[Value, ...]
    early: tuple[Value, ...]
    """The graph outputs that the device side produces."""
    explain: Callable[[Cut], str] | None
    """Words the reason; None when the position is legal."""

    @property
    def bytes(self) -> float:
        """Raw bytes of what travels; infinite when a type is not known."""
        return sum(size_bytes(value) for value in (*self.sent, *self.shapes, *self.forwards))


def boundaries(plan: Schedule, max_tensors: int, recompute: Recompute | None) -> Iterator[Boundary]:
    """Yield the boundary of every position between two nodes.

    Args:
        plan: The schedule that is cut.
        max_tensors: How many produced values may cross at a legal position.
        recompute: What the server side may compute again. A position is then cut with it or
            without, whichever is legal; where both are, by the fewer bytes.
    """
    plain = _swept(plan, max_tensors, None)
    if recompute is None:
        return plain
    return map(_better, plain, _swept(plan, max_tensors, recompute))


def _swept(plan: Schedule, max_tensors: int, recompute: Recompute | None) -> Iterator[Boundary]:
    sweep = _Sweep(plan, max_tensors, recompute)
    for _ in range(1, len(plan.nodes)):
        sweep.advance()
        yield sweep.boundary()


def _better(plain: Boundary, recomputing: Boundary) -> Boundary:
    """Return the legal boundary of two at one position; the smaller one when both are legal.

    Where neither is, the reason is that against recomputing.
    """
    if plain.explain is not None:
        return recomputing
    if recomputing.explain is not None:
        return plain
    return plain if plain.bytes <= recomputing.bytes else recomputing


class _LegalPosition(NamedTuple):
    """What a legal position sends; a later one that sends no more than this repeats it."""

    position: int
    sent: tuple[Value, ...]
    early: int
    """How many graph outputs were ready."""
    forwards: tuple[Value, ...]


class _Sweep:
    """The boundary of the current position, kept up to date while the position advances."""

    def __init__(self, plan: Schedule, max_tensors: int, recompute: Recompute | None) -> None:
        self._plan = plan
        self._max_tensors = max_tensors
        self._position = 0

        self._live = LiveValues(plan, recompute)
        self._outputs: set[Value | None] = set(plan.graph.outputs)
        read_inputs = [value for value in plan.inputs if value in self._live.last_use]
        self._unread = dict.fromkeys(read_inputs)
        self._forwards = tuple(self._unread)
        self._early = tuple(value for value in plan.inputs if value in self._outputs)

        self._states = SplitStates(plan)
        self._open_states: set[str] = set()
        self._pending = Branches(plan, max_tensors).pending
        self._last_legal = _LegalPosition(0, (), 0, ())

    def advance(self) -> None:
        """Take the next node to the device side."""
        index = self._position
        node = self._plan.nodes[index]
        self._position += 1

        self._live.define(node.outputs, self._position)
        if not self._outputs.isdisjoint(node.outputs):
            self._early += tuple(
                value for value in node.outputs if value is not None and value in self._outputs
            )

        for value in self._plan.reads[index]:
            is_last_use = self._live.last_use.get(value) == index
            # What is in no set of live values is a graph input.
            if is_last_use and not self._live.kill(value, self._position):
                del self._unread[value]
                self._forwards = tuple(self._unread)

        self._touch_states(node, index)

    def _touch_states(self, node: Node, index: int) -> None:
        """Open the states that the node is the first to touch; close those it is the last to."""
        for state in node.states:
            first, last = self._states.spans[state]
            if index == first:
                self._open_states.add(state)
            if index == last:
                self._open_states.discard(state)

    def boundary(self) -> Boundary:
        """Return the boundary of the current position."""
        values, shapes, recomputed = self._live.groups
        # A frame needs a tensor. Where nothing has to be sent, what could be recomputed from graph
        # inputs alone is sent after all; where there is nothing of that either, the shapes are.
        if not values:
            values, recomputed = recomputed, {}
        if not values:
            values, shapes = shapes, {}

        if len(values) > self._max_tensors:
            explain = self._states.split if self._open_states else self._pending
            return Boundary(
                _some(values), len(values), (), (), self._forwards, self._early, explain
            )

        sent = tuple(values)
        forwards = self._live.forwards(recomputed, self._forwards)
        explain = self._objection(sent, tuple(shapes), forwards, bool(shapes or recomputed))
        return Boundary(
            sent, len(sent), tuple(shapes), tuple(recomputed), forwards, self._early, explain
        )

    def _objection(
        self,
        sent: tuple[Value, ...],
        shapes: tuple[Value, ...],
        forwards: tuple[Value, ...],
        recomputes: bool,
    ) -> Callable[[Cut], str] | None:
        """Return what words the reason against the current position; None when it is legal.

        Args:
            sent: The produced values that cross.
            shapes: The shapes that travel beside them.
            forwards: The graph inputs that travel.
            recomputes: Whether shapes travel, or values are recomputed.
        """
        if self._open_states:
            return self._states.split
        if not sent:
            return independent
        if not all(map(framable, (*sent, *forwards))):
            return unframable
        if len(sent) + len(shapes) + len(forwards) > MAX_TENSORS:
            return crowded

        # Where all nodes since the last legal position are recomputed, it would be the same cut.
        last = self._last_legal
        sends_the_same = last.sent == sent and last.early == len(self._early)
        if recomputes and sends_the_same and set(last.forwards).issubset(forwards):
            return partial(repeated, last.position)

        self._last_legal = _LegalPosition(self._position, sent, len(self._early), forwards)
        return None


def _some(values: dict[Value, None]) -> tuple[Value, ...]:
    """Return at most LISTED of the values: the oldest, and the newest."""
    if len(values) <= LISTED:
        return tuple(values)
    return (*islice(values, LISTED - 1), next(reversed(values)))
