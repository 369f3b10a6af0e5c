"""Text to IR: the inverse of the printer."""

import json
import re
from collections import ChainMap
from collections.abc import Callable, Collection, Mapping
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
"""Python turns no longer text into a number."""
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


def parse_model(text: str, buffers: Mapping[str, Buffer] | None = None) -> Model:
    """The model that `text` describes.

    `buffers` gives the bytes behind named constants; one that is missing is made without bytes, which is enough for
    every pass. Raises ParseError with line and column.
    """
    parser = _Parser(text, dict(buffers or {}))
    try:
        return parser.model()
    except (
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:  # of a number, a string, or what is nested too deeply
        parser.fail(reason(error))


class _Parser:
    def __init__(self, text: str, buffers: dict[str, Buffer]) -> None:
        self.text = text
        self.buffers = buffers
        self.tokens = list(self._tokenize())
        self.index = 0
        self.depth = 0
        self.graphs: dict[str, Graph] = {}
        self.calls: list[tuple[Node, list[str]]] = []

    def _tokenize(self):
        position = 0
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            if match is None:
                self._fail_at(position, f"unexpected character {self.text[position]!r}")
            position = match.end()
            if match.lastgroup != "skip":
                yield str(match.lastgroup), match.group(), match.start()
        yield "end", "", len(self.text)

    # -- tokens -------------------------------------------------------------------------------------------------

    def _fail_at(self, position: int, message: str) -> NoReturn:
        line = self.text.count("\n", 0, position) + 1
        column = position - (self.text.rfind("\n", 0, position) + 1) + 1
        raise ParseError(f"line {line}, column {column}: {message}")

    def fail(self, message: str) -> NoReturn:
        self._fail_at(self.tokens[min(self.index, len(self.tokens) - 1)][2], message)

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
        if self.token != token or self.kind == "string":
            return False
        self.index += 1
        return True

    def expect(self, token: str) -> None:
        if not self.accept(token):
            self.fail(f"expected '{token}', found '{short(self.token) or 'the end'}'")

    def name(self) -> str:
        if self.kind == "string":
            return self.string()
        if self.kind in ("word", "number", "bytes"):
            return self.next()
        self.fail(f"expected a name, found '{short(self.token) or 'the end'}'")

    def string(self) -> str:
        if self.kind != "string":
            self.fail(f"expected a string, found '{short(self.token) or 'the end'}'")
        try:
            text = str(json.loads(self.token))
            text.encode()
        except ValueError as error:  # an unknown escape, a line break, half of a surrogate pair
            self.fail(f"not a string: {error}")
        self.index += 1
        return text

    def integer(self) -> int:
        if not re.fullmatch(r"-?\d+", self.token) or len(self.token) > _MOST_DIGITS:
            self.fail(f"expected an integer, found '{short(self.token) or 'the end'}'")
        return int(self.next())

    def listed(self, item: Callable[[], _T], end: str) -> list[_T]:
        """Items separated by commas up to and including `end`."""
        items: list[_T] = []
        while not self.accept(end):
            if items:
                self.expect(",")
            items.append(item())
        return items

    def deeper(self, item: Callable[[], _T]) -> _T:
        """A body inside of a node, or a list inside of an attribute."""
        if self.depth >= DEEPEST_BODIES:
            self.fail(f"nested deeper than {DEEPEST_BODIES}")
        self.depth += 1
        try:
            return item()
        finally:
            self.depth -= 1

    def series(self, item: Callable[[], _T]) -> list[_T]:
        """One or more items separated by commas."""
        items = [item()]
        while self.accept(","):
            items.append(item())
        return items

    # -- structure ----------------------------------------------------------------------------------------------

    def model(self) -> Model:
        dialect = self.name() if self.accept("model") else "test"
        graphs: list[Graph] = []
        while self.kind != "end":
            graph = self.graph(ChainMap())
            self.graphs.setdefault(graph.name, graph)
            graphs.append(graph)
        if not graphs:
            self.fail("expected 'graph'")
        for node, callees in self.calls:
            missing = [name for name in callees if name not in self.graphs]
            if missing:
                raise ParseError(
                    f"{node} calls @{short(missing[0])}, which the text does not define"
                )
            node.callees = tuple(self.graphs[name] for name in callees)
        return Model(dialect, graphs)

    def graph(self, scope: ChainMap[str, Value]) -> Graph:
        self.expect("graph")
        self.expect("@")
        graph = Graph(self.name())
        visible = scope.new_child()
        self.expect("(")
        graph.inputs = self.listed(lambda: self.declaration(visible), ")")
        outputs = self.index_of_outputs()
        place = (
            self.name() if self.accept("on") else graph.name if graph.name in PLACES else NOWHERE
        )
        graph.placement = None if place == NOWHERE else place
        self.expect("{")
        while not self.accept("}"):
            if self.accept("const"):
                graph.constants.append(self.declaration(visible))
            else:
                graph.nodes.append(self.node(visible))
        end, self.index = self.index, outputs
        if self.accept("->"):
            self.expect("(")
            graph.outputs = self.listed(lambda: self.use(visible), ")")
        self.index = end
        return graph

    def index_of_outputs(self) -> int:
        """Step over the outputs, which name values that are not known yet; where they start."""
        start = self.index
        if self.accept("->"):
            self.expect("(")
            self.listed(lambda: (self.expect("%"), self.name()), ")")
        return start

    def declaration(self, visible: ChainMap[str, Value]) -> Value:
        self.expect("%")
        value = Value(self.name())
        visible[value.name] = value
        self.expect(":")
        value.type = self.type()
        if self.accept("="):
            value.constant = self.constant()
        return value

    def use(self, visible: Mapping[str, Value]) -> Value:
        self.expect("%")
        name = self.name()
        if name not in visible:
            self.index -= 2
            self.fail(f"%{short(name)} is not defined before its use")
        return visible[name]

    def operand(self, visible: Mapping[str, Value]) -> Value | None:
        return None if self.accept("_") else self.use(visible)

    def node(self, visible: ChainMap[str, Value]) -> Node:
        results: list[str | None] = []
        if self.token in ("%", "_"):
            results = self.series(self.result)
            self.expect("=")
        op = self.name()
        attributes: dict[str, Attribute] = {}
        if op in ("irsplit.send", "irsplit.recv"):
            attributes["boundary"] = self.integer()
            sends = op == "irsplit.send" and self.token == "%"
            inputs = self.series(lambda: self.operand(visible)) if sends else []
        else:
            self.expect("(")
            inputs = self.listed(lambda: self.operand(visible), ")")
        outputs = [None if name is None else Value(name) for name in results]
        node = Node(op, inputs, outputs, attributes=attributes)
        if self.kind == "string":
            node.name = self.string()
        if self.accept("calls"):
            self.calls.append((node, self.series(lambda: (self.expect("@"), self.name())[1])))
        if self.accept("states"):
            node.states = tuple(self.series(self.string))
        node.random = self.accept("random")
        if self.accept("{"):
            node.attributes.update(self.listed(lambda: self.assignment(attributes), "}"))
        if outputs:
            self.expect(":")
            types = self.series(lambda: None if self.accept("_") else self.type())
            if len(types) != len(outputs):
                self.fail(f"{short(op)} has {len(outputs)} results, but {len(types)} types")
            for value, type in zip(outputs, types, strict=True):
                if value is not None:
                    value.type = type
        if self.accept("with"):
            self.expect("{")
            bodies: list[Graph] = []
            while not self.accept("}"):
                bodies.append(self.deeper(lambda: self.graph(visible)))
            node.graphs = tuple(bodies)
        visible.update((value.name, value) for value in outputs if value is not None)
        return node

    def result(self) -> str | None:
        if self.accept("_"):
            return None
        self.expect("%")
        return self.name()

    # -- leaves -------------------------------------------------------------------------------------------------

    def type(self) -> Type | None:
        if self.accept("?"):
            return None
        if self.accept("!"):
            return OpaqueType(self.string())
        if self.token not in BY_NAME:
            self.fail(f"unknown element type '{short(self.token)}'; known: {', '.join(BY_NAME)}")
        dtype = BY_NAME[self.next()]
        self.expect("[")
        if self.accept("*"):
            self.expect("]")
            shape = None
        else:
            shape = tuple(self.listed(self.dim, "]"))
            if len(shape) > _MOST_DIMS:
                self.fail(f"a tensor of {len(shape)} dimensions; {_MOST_DIMS} are the most")
        quantization = self.quantization() if self.accept("q") else None
        return TensorType(
            dtype, shape, quantization, self.sizes() if self.accept("sized") else None
        )

    def sizes(self) -> tuple[int, ...]:
        self.expect("(")
        return tuple(self.listed(self.integer, ")"))

    def dim(self) -> Dim:
        if self.accept("?"):
            return None
        return self.integer() if self.kind == "number" else self.name()

    def quantization(self) -> Quantization:
        self.expect("(")
        pairs = self.series(self.scale_and_zero_point)
        axis = None
        if self.accept(";"):
            self.expect("axis")
            axis = self.integer()
        self.expect(")")
        return Quantization(
            tuple(scale for scale, _ in pairs), tuple(zero for _, zero in pairs), axis
        )

    def scale_and_zero_point(self) -> tuple[float, int]:
        scale = self.number()
        self.expect(":")
        return float(scale), self.integer()

    def number(self) -> int | float:
        if self.kind != "number":
            self.fail(f"expected a number, found '{short(self.token) or 'the end'}'")
        text = self.token
        if len(text) > _MOST_DIGITS:
            self.fail(f"a number of {len(text)} digits; {_MOST_DIGITS} are the most")
        self.index += 1
        return int(text) if re.fullmatch(r"-?\d+", text) else float(text)

    def constant(self) -> Constant:
        if self.kind == "bytes" and self.tokens[self.index + 1][1] != "[":
            data = self.hexadecimal()
            return Constant(Buffer.in_memory(data), 0, len(data), self.encoding())
        name = self.name()
        self.expect("[")
        offset = self.integer()
        self.expect(":")
        length = self.integer()
        self.expect("]")
        return Constant(
            self.buffers.setdefault(name, Buffer(name)), offset, length, self.encoding()
        )

    def hexadecimal(self) -> bytes:
        if len(self.token) % 2:
            self.fail("bytes need an even number of hexadecimal digits")
        return bytes.fromhex(self.next()[2:])

    def encoding(self) -> str:
        return self.name() if self.accept("as") else "raw"

    def assignment(self, taken: Collection[str]) -> tuple[str, Attribute]:
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
        for word, value in (("true", True), ("false", False), ("null", None)):
            if self.accept(word):
                return value
        return self.number()
