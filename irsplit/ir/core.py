"""Model, graph, node, value, constant: the neutral IR.

Wiring, types, constants and order are modelled; everything else of a source file rides in `native`, which only the
dialect that read it looks into. Passes change the IR; writers start from `native` and overwrite only the wiring.
"""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irsplit.base.errors import short
from irsplit.ir.types import Type

DEEPEST_BODIES = 100
"""Bodies inside bodies: protobuf's own limit, and what functions that call themselves for each body can take."""

Attribute = bool | int | float | str | bytes | Sequence["Attribute"] | None


class Buffer:
    """Bytes that constants point into: a file, mapped when somebody first looks, or bytes in memory."""

    __slots__ = ("_view", "name", "path")

    def __init__(
        self, name: str, path: Path | None = None, data: bytes | memoryview | None = None
    ) -> None:
        self.name = name
        self.path = path
        self._view = None if data is None else memoryview(data).cast("B")

    @classmethod
    def in_memory(cls, data: bytes | memoryview) -> "Buffer":
        return cls("", None, data)

    @property
    def view(self) -> memoryview:
        """All bytes, without a copy. Raises FileNotFoundError when the buffer has neither file nor bytes."""
        if self._view is None:
            if self.path is None:
                raise FileNotFoundError(f"the bytes of buffer '{self.name}' are not at hand")
            with self.path.open("rb") as file:
                empty = file.seek(0, 2) == 0
                self._view = memoryview(
                    b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                )
        return self._view

    def __repr__(self) -> str:
        return f"Buffer({self.name!r})"


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A weight: `length` bytes at `offset` of `buffer`; never copied by a pass.

    `encoding` is "raw" for little-endian elements in row-major order; any other name belongs to the dialect, which
    alone knows how to turn the bytes into elements (typed fields, sparse storage, strings).
    """

    buffer: Buffer
    offset: int
    length: int
    encoding: str = "raw"

    def view(self) -> memoryview:
        return self.buffer.view[self.offset : self.offset + self.length]

    @classmethod
    def of(cls, data: bytes) -> "Constant":
        return cls(Buffer.in_memory(data), 0, len(data))


class Value:
    """What flows along an edge: produced once (by a node, the caller or a constant), used any number of times.

    `constant` beside a graph input is that input's default. `readers` are the nodes with the value among their inputs,
    in the order in which they began to read it; the nodes of a body count for what the body captures.
    """

    __slots__ = ("constant", "name", "native", "producer", "readers", "type")

    def __init__(
        self,
        name: str,
        type: Type | None = None,
        constant: Constant | None = None,
        native: Any = None,
    ) -> None:
        self.name = name
        self.type = type
        self.constant = constant
        self.native = native
        self.producer: Node | None = None
        self.readers: dict[Node, None] = {}

    @property
    def uses(self) -> list[tuple["Node", int]]:
        """Every (node, operand index) that reads the value; graph outputs are not uses."""
        return [
            (node, index)
            for node in self.readers
            for index, read in enumerate(node.inputs)
            if read is self
        ]

    def __repr__(self) -> str:
        return f"%{short(self.name)}"


class Node:
    """An operation. `op` is "<dialect>.<Operator>"; `inputs` has None where an optional operand is absent.

    `graphs` are bodies that the node owns and that may use values of the graphs around it; `callees` are graphs of the
    model that it calls by name. `states` names every variable, resource or stream that it reads or writes: nodes that
    share one must stay together. `random` nodes give another result each time and are never cloned.
    """

    __slots__ = (
        "attributes",
        "callees",
        "graphs",
        "inputs",
        "name",
        "native",
        "op",
        "outputs",
        "random",
        "states",
    )

    def __init__(
        self,
        op: str,
        inputs: Iterable[Value | None] = (),
        outputs: Iterable[Value | None] = (),
        *,
        name: str = "",
        graphs: Iterable["Graph"] = (),
        callees: Iterable["Graph"] = (),
        attributes: dict[str, Attribute] | None = None,
        states: Iterable[str] = (),
        random: bool = False,
        native: Any = None,
    ) -> None:
        self.op = op
        self.name = name
        self.inputs: tuple[Value | None, ...] = ()
        self.outputs = tuple(outputs)
        self.graphs = tuple(graphs)
        self.callees = tuple(callees)
        self.attributes = attributes or {}
        self.states = tuple(states)
        self.random = random
        self.native = native
        for value in self.outputs:
            if value is not None:
                value.producer = self
        self.set_inputs(inputs)

    def set_inputs(self, inputs: Iterable[Value | None]) -> None:
        """Replace all operands, keeping the readers of old and new ones true."""
        for value in self.inputs:
            if value is not None:
                value.readers.pop(self, None)
        self.inputs = tuple(inputs)
        for value in self.inputs:
            if value is not None:
                value.readers[self] = None

    def set_input(self, index: int, value: Value | None) -> None:
        self.set_inputs((*self.inputs[:index], value, *self.inputs[index + 1 :]))

    def __repr__(self) -> str:
        return f"{short(self.op)} '{short(self.name)}'" if self.name else short(self.op)


@dataclass(eq=False, slots=True)
class Graph:
    """Nodes in topological order, an invariant, between inputs and outputs.

    `constants` are declared here (an input with a default is in `inputs` only). `place` is set on segments: where the
    segment runs, "device" or "server".
    """

    name: str
    inputs: list[Value] = field(default_factory=list[Value])
    outputs: list[Value] = field(default_factory=list[Value])
    nodes: list[Node] = field(default_factory=list[Node])
    constants: list[Value] = field(default_factory=list[Value])
    placement: str | None = None
    native: Any = None

    def values(self) -> Iterator[Value]:
        """Every value that this graph defines itself, in order of definition."""
        yield from self.inputs
        yield from self.constants
        for node in self.nodes:
            yield from (value for value in node.outputs if value is not None)


@dataclass(eq=False, slots=True)
class Model:
    """A model of one dialect. `graphs[0]` is the entry; after `partition`, one graph a segment comes first.

    The remaining graphs are called by name: functions, bodies of control flow, other signatures.
    """

    dialect: str
    graphs: list[Graph]
    native: Any = None

    @property
    def entry(self) -> Graph:
        return self.graphs[0]

    @property
    def segments(self) -> list[Graph]:
        """The segments in execution order; empty before `partition`."""
        return [graph for graph in self.graphs if graph.placement is not None]


def required_inputs(graph: Graph) -> list[Value]:
    """The inputs that a caller must feed: those without a default."""
    return [value for value in graph.inputs if value.constant is None]


def captures(node: Node) -> list[Value]:
    """Values of the graphs around `node` that its bodies use or return, nested bodies included, each once."""
    found: dict[Value, None] = {}
    defined: set[Value] = set()
    pending = list(node.graphs)
    while pending:
        graph = pending.pop()
        defined.update(graph.values())
        found.update(dict.fromkeys(graph.outputs))
        for inner in graph.nodes:
            found.update((value, None) for value in inner.inputs if value is not None)
            pending.extend(inner.graphs)
    return [value for value in found if value not in defined]


def uses_with_captures(node: Node) -> list[Value]:
    """Everything that must exist before `node` runs: its inputs and what its bodies capture, each once."""
    values = dict.fromkeys(filter(None, node.inputs))
    if node.graphs:
        values.update(dict.fromkeys(captures(node)))
    return list(values)


def walk(graph: Graph) -> Iterator[Node]:
    """Every node of the graph and of all bodies inside it."""
    pending = [graph]
    while pending:
        current = pending.pop()
        for node in current.nodes:
            yield node
            pending.extend(node.graphs)
