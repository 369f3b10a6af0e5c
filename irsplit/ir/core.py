"""Model, graph, node, value, constant: the neutral IR.

The IR models wiring, types, constants and order. Everything else of a source file is kept in
`native`, which only the dialect that read the file looks into. Passes change the IR; writers start
from `native` and overwrite only the wiring.
"""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irsplit.base.errors import short
from irsplit.ir.printer import print_graph, print_model
from irsplit.ir.types import Type

DEEPEST_BODIES = 100
"""The deepest nesting of bodies: protobuf's own limit, and within Python's recursion limit."""

Attribute = bool | int | float | str | bytes | Sequence["Attribute"] | None


class Buffer:
    """Bytes that constants point into: a file, mapped on first use, or bytes in memory.

    Args:
        name: The file's name in the IR text; empty for bytes in memory.
        path: The file, or None.
        data: The bytes, or None. A buffer with neither can be printed, but not read.
    """

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
        """All bytes, without a copy.

        Raises:
            FileNotFoundError: The buffer has neither a file nor bytes.
            OSError: The file cannot be read.
        """
        if self._view is None:
            self._view = self._map()
        return self._view

    def _map(self) -> memoryview:
        if self.path is None:
            raise FileNotFoundError(f"the bytes of buffer '{self.name}' are not at hand")
        with self.path.open("rb") as file:
            # An empty file cannot be mapped.
            if file.seek(0, 2) == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def __repr__(self) -> str:
        return f"Buffer({self.name!r})"


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A weight: `length` bytes at `offset` of `buffer`; no pass ever copies the bytes.

    `encoding` is "raw" for little-endian elements in row-major order. Any other name belongs to the
    dialect, which alone can turn the bytes into elements (typed fields, sparse storage, strings).
    """

    buffer: Buffer
    offset: int
    length: int
    encoding: str = "raw"

    def view(self) -> memoryview:
        """The bytes of this constant, without a copy."""
        return self.buffer.view[self.offset : self.offset + self.length]

    @classmethod
    def of(cls, data: bytes) -> "Constant":
        """A raw constant with these bytes."""
        return cls(Buffer.in_memory(data), 0, len(data))


class Value:
    """What flows along an edge of a graph: defined once, used any number of times.

    Attributes:
        name: The name, unique in the graph that defines the value.
        type: The type, or None if it is not known.
        constant: The bytes of a constant; beside a graph input, the input's default.
        native: What the dialect keeps of the source file.
        producer: The node that computes the value; None for inputs and constants.
        readers: The nodes that have the value among their inputs, in the order in which they began
            to read it. Nodes of a body are readers of what the body captures.
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
        uses: list[tuple[Node, int]] = []
        for node in self.readers:
            uses.extend((node, index) for index, read in enumerate(node.inputs) if read is self)
        return uses

    def __repr__(self) -> str:
        return f"%{short(self.name)}"


class Node:
    """An operation of a graph.

    Args:
        op: The operator, as "<dialect>.<Operator>".
        inputs: The operands; None where an optional operand is absent.
        outputs: The results; None where an optional result is not asked for.
        name: The node's name in the source file, which need not be unique.
        graphs: Bodies that the node owns. They may use values of the graphs around them.
        callees: Graphs of the model that the node calls by name.
        attributes: What the dialect shows of the operator's options in the IR text.
        states: Every variable, resource or stream that the node reads or writes. Nodes that share
            a state must stay in one segment.
        random: Whether each run gives another result. Such nodes are never cloned.
        native: What the dialect keeps of the source file.
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
        """Replace all operands, and update the readers of the old and the new ones."""
        for value in self.inputs:
            if value is not None:
                value.readers.pop(self, None)

        self.inputs = tuple(inputs)
        for value in self.inputs:
            if value is not None:
                value.readers[self] = None

    def set_input(self, index: int, value: Value | None) -> None:
        """Replace one operand, as `set_inputs` does."""
        self.set_inputs((*self.inputs[:index], value, *self.inputs[index + 1 :]))

    def __repr__(self) -> str:
        return f"{short(self.op)} '{short(self.name)}'" if self.name else short(self.op)


@dataclass(eq=False, slots=True, repr=False)
class Graph:
    """A list of nodes in an order in which they can run, with inputs and outputs.

    `constants` declares the graph's constants; an input with a default is in `inputs` only.
    `placement` is set on segments alone: "device" or "server". `str(graph)` is its IR text.
    """

    name: str
    inputs: list[Value] = field(default_factory=list[Value])
    outputs: list[Value] = field(default_factory=list[Value])
    nodes: list[Node] = field(default_factory=list[Node])
    constants: list[Value] = field(default_factory=list[Value])
    placement: str | None = None
    native: Any = None

    def values(self) -> Iterator[Value]:
        """Every value that this graph itself defines, in order of definition."""
        yield from self.inputs
        yield from self.constants
        for node in self.nodes:
            yield from (value for value in node.outputs if value is not None)

    def __repr__(self) -> str:
        place = f" on {self.placement}" if self.placement else ""
        return (
            f"<Graph @{short(self.name)}{place}: {_count(self.inputs, 'input')}, "
            f"{_count(self.nodes, 'node')}, {_count(self.outputs, 'output')}>"
        )

    def __str__(self) -> str:
        return print_graph(self)


@dataclass(eq=False, slots=True, repr=False)
class Model:
    """A model of one dialect; `str(model)` is its IR text.

    `graphs[0]` is the entry. After `partition`, the segments come first instead, in execution
    order. The other graphs are called by name: functions, bodies of control flow, other signatures.

    Example:
        >>> from irsplit.ir import parse_model
        >>> model = parse_model("graph @main(%x: f32[1,8]) -> (%x) {}")
        >>> model
        <Model of test: 1 graph, entry <Graph @main: 1 input, 0 nodes, 1 output>>
        >>> print(model)
        model test
        graph @main(%x: f32[1,8]) -> (%x) {
        }
        <BLANKLINE>
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

    def __repr__(self) -> str:
        if not self.graphs:
            return f"<Model of {self.dialect}: no graphs>"
        graphs = _count(self.graphs, "graph")
        return f"<Model of {self.dialect}: {graphs}, entry {self.entry!r}>"

    def __str__(self) -> str:
        return print_model(self)


def _count(items: Sequence[object], noun: str) -> str:
    return f"{len(items)} {noun}" if len(items) == 1 else f"{len(items)} {noun}s"


def required_inputs(graph: Graph) -> list[Value]:
    """The inputs for which a caller must give data: those without a default."""
    return [value for value in graph.inputs if value.constant is None]


def captures(node: Node) -> list[Value]:
    """The values of surrounding graphs that the bodies of a node use or return.

    Args:
        node: A node, whose bodies may contain further bodies.

    Returns:
        Each captured value once, in order of first use; empty for a node without bodies.
    """
    used: dict[Value, None] = {}
    defined: set[Value] = set()
    pending = list(node.graphs)
    while pending:
        graph = pending.pop()
        defined.update(graph.values())
        used.update(dict.fromkeys(graph.outputs))
        for inner in graph.nodes:
            used.update((value, None) for value in inner.inputs if value is not None)
            pending.extend(inner.graphs)
    return [value for value in used if value not in defined]


def uses_with_captures(node: Node) -> list[Value]:
    """Every value that must exist before a node runs: its inputs and captures, each once."""
    values = dict.fromkeys(filter(None, node.inputs))
    if node.graphs:
        values.update(dict.fromkeys(captures(node)))
    return list(values)


def walk(graph: Graph) -> Iterator[Node]:
    """Every node of a graph and of all bodies inside it."""
    pending = [graph]
    while pending:
        current = pending.pop()
        for node in current.nodes:
            yield node
            pending.extend(node.graphs)
