"""From text to IR: the inverse of the printer.

`_Tokens` cuts the text into tokens and reads what has no structure: names, strings, numbers, lists.
`_Leaves` adds types, constants and attributes, and `_Parser` adds nodes, graphs and the model. Each
method reads one thing at the current token and leaves the current token behind it.
"""

import json
import re
from collections import ChainMap
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NoReturn, TypeVar

from irsplit.base.dtypes import BY_NAME
from irsplit.base.errors import ParseError, short
from irsplit.base.reading import reason
from irsplit.ir.core import DEEPEST_BODIES, Attribute, Buffer, Constant, Graph, Model, Node, Value
from irsplit.ir.printer import NOWHERE, PLACES
from irsplit.ir.types import Dim, OpaqueType, Quantization, TensorType, Type

_T = TypeVar("_T")
_MOST_DIMS = 255
_MOST_DIGITS = 4000
"""Python refuses to convert longer texts to integers."""
_INTEGER = re.compile(r"-?\d+")
_TOKEN = re.compile(
    r"""(?P<skip>(?:\s+|//[^\n]*)+)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<bytes>0x[0-9a-fA-F]*)
      | (?P<number>-?(?:Infinity|NaN|inf|nan|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.$-])))
      | (?P<word>[A-Za-z0-9_][\w.$-]*)
      | (?P<symbol>->|[@%(){}\[\],:;=!?*])
    """,
    re.VERBOSE | re.ASCII,
)
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


def parse_model(text: str, buffers: Mapping[str, Buffer] | None = None) -> Model:
    """Parse the text of a model, or of graphs alone (a model of the dialect `test`).

    Args:
        text: What `str(model)` gives. Comments run from `//` to the end of the line.
        buffers: The bytes behind named constants, by name. A missing one is made without bytes,
            which is enough for every pass.

    Returns:
        The model, which is not verified.

    Raises:
        ParseError: The text is not a model; the error names line and column.

    Example:
        >>> model = parse_model("graph @main(%x: f32[1,8]) -> (%x) {}")
        >>> model.entry.inputs
        [%x]
    """
    parser = _Parser(text, dict(buffers or {}))
    try:
        return parser.model()
    except (ValueError, OverflowError, RecursionError) as error:
        # A number, a string, or too deep a nesting.
        parser.fail(reason(error))


class _Tokens:
    """The tokens of a text, and the position in them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._tokenize())
        self.index = 0
        self.depth = 0

    def _tokenize(self) -> Iterator[tuple[str, str, int]]:
        """Kind, text and position of each token; the last one is of the kind "end"."""
        position = 0
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            if match is None:
                self._fail_at(position, f"unexpected character {self.text[position]!r}")
            position = match.end()
            if match.lastgroup != "skip":
                yield str(match.lastgroup), match.group(), match.start()
        yield "end", "", len(self.text)

    def _fail_at(self, position: int, message: str) -> NoReturn:
        line = self.text.count("\n", 0, position) + 1
        column = position - (self.text.rfind("\n", 0, position) + 1) + 1
        raise ParseError(f"line {line}, column {column}: {message}")

    def fail(self, message: str) -> NoReturn:
        """Raise ParseError at the current token."""
        self._fail_at(self.tokens[min(self.index, len(self.tokens) - 1)][2], message)

    def fail_expected(self, expected: str) -> NoReturn:
        self.fail(f"expected {expected}, found '{short(self.token) or 'the end'}'")

    @property
    def kind(self) -> str:
        return self.tokens[self.index][0]

    @property
    def token(self) -> str:
        return self.tokens[self.index][1]

    def next(self) -> str:
        token = self.token
        self.index += 1
        return token

    def accept(self, token: str) -> bool:
        """Step over the token if it is the current one; whether it is."""
        if self.token != token or self.kind == "string":
            return False
        self.index += 1
        return True

    def expect(self, token: str) -> None:
        if not self.accept(token):
            self.fail_expected(f"'{token}'")

    def name(self) -> str:
        if self.kind == "string":
            return self.string()
        if self.kind in ("word", "number", "bytes"):
            return self.next()
        self.fail_expected("a name")

    def string(self) -> str:
        if self.kind != "string":
            self.fail_expected("a string")
        try:
            text = str(json.loads(self.token))
            text.encode()
        except ValueError as error:
            # An unknown escape, a line break, or half of a surrogate pair.
            self.fail(f"not a string: {error}")
        self.index += 1
        return text

    def integer(self) -> int:
        if not _INTEGER.fullmatch(self.token) or len(self.token) > _MOST_DIGITS:
            self.fail_expected("an integer")
        return int(self.next())

    def number(self) -> int | float:
        if self.kind != "number":
            self.fail_expected("a number")
        text = self.token
        if len(text) > _MOST_DIGITS:
            self.fail(f"a number of {len(text)} digits; {_MOST_DIGITS} are the most")
        self.index += 1
        return int(text) if _INTEGER.fullmatch(text) else float(text)

    def hexadecimal(self) -> bytes:
        if len(self.token) % 2:
            self.fail("bytes need an even number of hexadecimal digits")
        return bytes.fromhex(self.next()[2:])

    def listed(self, item: Callable[[], _T], end: str) -> list[_T]:
        """Items separated by commas up to and including `end`."""
        items: list[_T] = []
        while not self.accept(end):
            if items:
                self.expect(",")
            items.append(item())
        return items

    def series(self, item: Callable[[], _T]) -> list[_T]:
        """One or more items separated by commas."""
        items = [item()]
        while self.accept(","):
            items.append(item())
        return items

    def deeper(self, item: Callable[[], _T]) -> _T:
        """An item that nests: a body inside a node, or a list inside an attribute."""
        if self.depth >= DEEPEST_BODIES:
            self.fail(f"nested deeper than {DEEPEST_BODIES}")
        self.depth += 1
        try:
            return item()
        finally:
            self.depth -= 1


class _Leaves(_Tokens):
    """Types, constants and attributes."""

    def __init__(self, text: str, buffers: dict[str, Buffer]) -> None:
        super().__init__(text)
        self.buffers = buffers

    def type(self) -> Type | None:
        if self.accept("?"):
            return None
        if self.accept("!"):
            return OpaqueType(self.string())

        if self.token not in BY_NAME:
            self.fail(f"unknown element type '{short(self.token)}'; known: {', '.join(BY_NAME)}")
        dtype = BY_NAME[self.next()]
        shape = self.shape()
        quantization = self.quantization() if self.accept("q") else None
        assumed = self.sizes() if self.accept("sized") else None
        return TensorType(dtype, shape, quantization, assumed)

    def shape(self) -> tuple[Dim, ...] | None:
        self.expect("[")
        if self.accept("*"):
            self.expect("]")
            return None

        shape = tuple(self.listed(self.dim, "]"))
        if len(shape) > _MOST_DIMS:
            self.fail(f"a tensor of {len(shape)} dimensions; {_MOST_DIMS} are the most")
        return shape

    def dim(self) -> Dim:
        if self.accept("?"):
            return None
        return self.integer() if self.kind == "number" else self.name()

    def sizes(self) -> tuple[int, ...]:
        self.expect("(")
        return tuple(self.listed(self.integer, ")"))

    def quantization(self) -> Quantization:
        self.expect("(")
        pairs = self.series(self.scale_and_zero_point)
        axis = None
        if self.accept(";"):
            self.expect("axis")
            axis = self.integer()
        self.expect(")")
        scales, zero_points = zip(*pairs, strict=True)
        return Quantization(tuple(scales), tuple(zero_points), axis)

    def scale_and_zero_point(self) -> tuple[float, int]:
        scale = self.number()
        self.expect(":")
        return float(scale), self.integer()

    def constant(self) -> Constant:
        # A buffer may have a name that reads like bytes; its span follows in brackets.
        if self.kind == "bytes" and self.tokens[self.index + 1][1] != "[":
            data = self.hexadecimal()
            return Constant(Buffer.in_memory(data), 0, len(data), self.encoding())

        name = self.name()
        self.expect("[")
        offset = self.integer()
        self.expect(":")
        length = self.integer()
        self.expect("]")
        buffer = self.buffers.setdefault(name, Buffer(name))
        return Constant(buffer, offset, length, self.encoding())

    def encoding(self) -> str:
        return self.name() if self.accept("as") else "raw"

    def assignment(self, taken: Collection[str]) -> tuple[str, Attribute]:
        """The name and the value of an attribute; no name may be in `taken`."""
        if self.token in taken:
            self.fail(f"'{self.token}' is given twice")
        key = self.name()
        self.expect("=")
        return key, self.attribute()

    def attribute(self) -> Attribute:
        if self.kind == "string":
            return self.string()
        if self.kind == "bytes":
            return self.hexadecimal()
        if self.accept("["):
            return self.deeper(lambda: self.listed(self.attribute, "]"))
        for word, value in _WORDS.items():
            if self.accept(word):
                return value
        return self.number()


class _Parser(_Leaves):
    """Nodes, graphs and the model."""

    def __init__(self, text: str, buffers: dict[str, Buffer]) -> None:
        super().__init__(text, buffers)
        self.graphs: dict[str, Graph] = {}
        self.calls: list[tuple[Node, list[str]]] = []

    def model(self) -> Model:
        dialect = self.name() if self.accept("model") else "test"
        graphs: list[Graph] = []
        while self.kind != "end":
            graph = self.graph(ChainMap())
            self.graphs.setdefault(graph.name, graph)
            graphs.append(graph)
        if not graphs:
            self.fail("expected 'graph'")

        self.connect_calls()
        return Model(dialect, graphs)

    def connect_calls(self) -> None:
        """Give nodes the graphs that they call, now that all graphs are known."""
        for node, callees in self.calls:
            missing = [name for name in callees if name not in self.graphs]
            if missing:
                raise ParseError(
                    f"{node} calls @{short(missing[0])}, which the text does not define"
                )
            node.callees = tuple(self.graphs[name] for name in callees)

    def graph(self, scope: ChainMap[str, Value]) -> Graph:
        """A graph; `scope` has the values of the graphs around it by name."""
        self.expect("graph")
        self.expect("@")
        graph = Graph(self.name())
        visible = scope.new_child()

        self.expect("(")
        graph.inputs = self.listed(lambda: self.declaration(visible), ")")
        outputs = self.skip_outputs()
        graph.placement = self.placement(graph.name)

        self.expect("{")
        while not self.accept("}"):
            if self.accept("const"):
                graph.constants.append(self.declaration(visible))
            else:
                graph.nodes.append(self.node(visible))

        # The outputs stand before the nodes that produce them, so they are read last.
        end, self.index = self.index, outputs
        if self.accept("->"):
            self.expect("(")
            graph.outputs = self.listed(lambda: self.use(visible), ")")
        self.index = end
        return graph

    def skip_outputs(self) -> int:
        """Step over the outputs of a graph, and return the index at which they start."""
        start = self.index
        if self.accept("->"):
            self.expect("(")
            self.listed(self.value_name, ")")
        return start

    def placement(self, graph_name: str) -> str | None:
        """Where a graph runs, which by default is the place whose name it has."""
        if self.accept("on"):
            place = self.name()
            return None if place == NOWHERE else place
        return graph_name if graph_name in PLACES else None

    def declaration(self, visible: ChainMap[str, Value]) -> Value:
        """An input or a constant, which becomes visible."""
        value = Value(self.value_name())
        visible[value.name] = value
        self.expect(":")
        value.type = self.type()
        if self.accept("="):
            value.constant = self.constant()
        return value

    def value_name(self) -> str:
        self.expect("%")
        return self.name()

    def use(self, visible: Mapping[str, Value]) -> Value:
        name = self.value_name()
        if name not in visible:
            self.index -= 2
            self.fail(f"%{short(name)} is not defined before its use")
        return visible[name]

    def node(self, visible: ChainMap[str, Value]) -> Node:
        """A node, whose results become visible behind it."""
        names: list[str | None] = []
        if self.token in ("%", "_"):
            names = self.series(self.result)
            self.expect("=")
        outputs = [None if name is None else Value(name) for name in names]

        node = self.operation(outputs, visible)
        self.suffixes(node)
        if outputs:
            self.types(node)
        if self.accept("with"):
            node.graphs = self.bodies(visible)
        visible.update((value.name, value) for value in outputs if value is not None)
        return node

    def result(self) -> str | None:
        return None if self.accept("_") else self.value_name()

    def operand(self, visible: Mapping[str, Value]) -> Value | None:
        return None if self.accept("_") else self.use(visible)

    def operation(self, outputs: list[Value | None], visible: Mapping[str, Value]) -> Node:
        """The operator and its operands; `send` and `recv` name the boundary before them."""
        op = self.name()
        if op not in ("irsplit.send", "irsplit.recv"):
            self.expect("(")
            return Node(op, self.listed(lambda: self.operand(visible), ")"), outputs)

        attributes: dict[str, Attribute] = {"boundary": self.integer()}
        sends = op == "irsplit.send" and self.token == "%"
        inputs = self.series(lambda: self.operand(visible)) if sends else []
        return Node(op, inputs, outputs, attributes=attributes)

    def suffixes(self, node: Node) -> None:
        """What may follow the operands: name, callees, states, randomness, attributes."""
        if self.kind == "string":
            node.name = self.string()
        if self.accept("calls"):
            self.calls.append((node, self.series(self.graph_name)))
        if self.accept("states"):
            node.states = tuple(self.series(self.string))
        node.random = self.accept("random")
        if self.accept("{"):
            taken = tuple(node.attributes)
            node.attributes.update(self.listed(lambda: self.assignment(taken), "}"))

    def graph_name(self) -> str:
        self.expect("@")
        return self.name()

    def types(self, node: Node) -> None:
        """The types of the results, `_` for one that is absent."""
        self.expect(":")
        types = self.series(lambda: None if self.accept("_") else self.type())
        if len(types) != len(node.outputs):
            self.fail(f"{short(node.op)} has {len(node.outputs)} results, but {len(types)} types")
        for value, type in zip(node.outputs, types, strict=True):
            if value is not None:
                value.type = type

    def bodies(self, visible: ChainMap[str, Value]) -> tuple[Graph, ...]:
        self.expect("{")
        bodies: list[Graph] = []
        while not self.accept("}"):
            bodies.append(self.deeper(lambda: self.graph(visible)))
        return tuple(bodies)
