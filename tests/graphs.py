"""Random models of the `test` dialect: forks, joins, many inputs, everything awkward."""

from dataclasses import dataclass, field
from typing import cast

from hypothesis import strategies as st

from irsplit.base.dtypes import BOOL, F32, I64, STR, U8
from irsplit.ir import Constant, Graph, Model, Node, OpaqueType, TensorType, Type, Value

FRAMED = (
    TensorType(F32, (1, 4)),
    TensorType(U8, (3,)),
    TensorType(I64, ()),
    TensorType(BOOL, ("n", 2)),
    TensorType(F32, (None,)),
)
UNFRAMED = (
    None,
    OpaqueType("sequence(f32)"),
    TensorType(STR, (1,)),
    TensorType(F32, None),
    TensorType(U8, (1,) * 9),
)


@dataclass(frozen=True)
class Shape:
    """How large and how awkward a random model is."""

    nodes: int = 14
    effects: bool = True
    """Random nodes and states."""
    bodies: bool = True
    """Bodies that capture, and calls."""
    unframed: bool = True
    """Values that no frame can carry."""
    chainy: int = 4
    """How often, of chainy + 1 times, an operand is among the three newest values."""


ANY = Shape()
PLAIN = Shape(nodes=9, effects=False, bodies=False, unframed=False)
SMALL = Shape(nodes=9)


@dataclass
class _Builder:
    draw: st.DrawFn
    shape: Shape
    counts: dict[str, int] = field(default_factory=dict[str, int])
    callees: list[Graph] = field(default_factory=list[Graph])

    def chance(self, of: int) -> bool:
        return self.draw(st.integers(0, of - 1)) == of - 1

    def fresh(self, prefix: str) -> str:
        self.counts[prefix] = self.counts.get(prefix, 0) + 1
        return f"{prefix}{self.counts[prefix]}"

    def type(self) -> Type | None:
        if self.shape.unframed and self.chance(40):
            return cast(Type | None, self.draw(st.sampled_from(UNFRAMED)))
        return self.draw(st.sampled_from(FRAMED))

    def value(self, prefix: str, constant: bool = False) -> Value:
        name = self.fresh(prefix)
        return Value(name, self.type(), Constant.of(name.encode()) if constant else None)

    def operand(self, known: list[Value]) -> Value | None:
        if not known or self.chance(20):
            return None
        near = known[-3:] if self.draw(st.integers(0, self.shape.chainy)) else known
        return self.draw(st.sampled_from(near))

    def node(self, known: list[Value]) -> Node:
        inputs = [
            self.operand(known)
            for _ in range(self.draw(st.sampled_from([1, 1, 1, 1, 2, 2, 2, 3, 0])))
        ]
        outputs: list[Value | None] = [
            self.value("v") for _ in range(self.draw(st.sampled_from([1, 1, 1, 1, 2, 3])))
        ]
        if len(outputs) > 1 and self.chance(3):
            outputs[0] = None
        graphs: list[Graph] = []
        callees: list[Graph] = []
        if self.shape.bodies and self.chance(10):
            graphs = [self.body("body", known) for _ in range(self.draw(st.integers(1, 2)))]
        elif self.shape.bodies and self.chance(12):
            callees = [self.callee()]
        states: list[str] = []
        random = self.shape.effects and self.chance(20)
        if self.shape.effects and self.chance(16):
            states = self.draw(
                st.lists(st.sampled_from(["s", "t"]), min_size=1, max_size=2, unique=True)
            )
            if self.chance(3):
                outputs = []
        attributes = {"alpha": self.draw(st.integers(0, 3))} if self.chance(4) else {}
        return Node(
            self.draw(st.sampled_from(["test.a", "test.b"])),
            inputs,
            outputs,
            name=self.fresh("n"),
            graphs=graphs,
            callees=callees,
            states=states,
            random=random,
            attributes=dict(attributes),
        )

    def body(self, name: str, around: list[Value]) -> Graph:
        """A body that may read what is around it, twice nested at most."""
        inputs = [self.value("i") for _ in range(self.draw(st.integers(0, 1)))]
        constants = [self.value("k", constant=True) for _ in range(self.draw(st.integers(0, 1)))]
        known = [*around, *inputs, *constants]
        nodes: list[Node] = []
        for _ in range(self.draw(st.integers(0, 2))):
            read = [self.operand(known) for _ in range(self.draw(st.integers(0, 2)))]
            graphs = [self.body("inner", known)] if name == "body" and self.chance(4) else []
            made = self.value("b")
            nodes.append(Node("test.inner", read, [made], name=self.fresh("n"), graphs=graphs))
            known.append(made)
        outputs = self.draw(st.lists(st.sampled_from(known[-4:]), max_size=2)) if known else []
        return Graph(name, inputs, outputs, nodes, constants)

    def callee(self) -> Graph:
        """A graph of the model that nodes call: an earlier one, or a new one."""
        if self.callees and self.chance(2):
            return self.draw(st.sampled_from(self.callees))
        given, made = self.value("p"), self.value("q")
        calls = self.callees[-1:] if self.chance(2) else []
        node = Node("test.callee", [given], [made], name=self.fresh("n"), callees=calls)
        graph = Graph(self.fresh("function"), [given], [made], [node])
        self.callees.append(graph)
        return graph


@st.composite
def models(draw: st.DrawFn, shape: Shape = ANY) -> Model:
    """A valid model of up to `shape.nodes` nodes, dead and free ones among them."""
    builder = _Builder(draw, shape)
    inputs = [builder.value("x") for _ in range(draw(st.sampled_from([1, 1, 2, 3])))]
    inputs += [builder.value("d", constant=True) for _ in range(draw(st.sampled_from([0, 0, 1])))]
    constants = [builder.value("w", constant=True) for _ in range(draw(st.integers(0, 2)))]
    known = [*constants, *inputs]
    nodes: list[Node] = []
    for _ in range(draw(st.integers(2, shape.nodes))):
        node = builder.node(known)
        nodes.append(node)
        known.extend(value for value in node.outputs if value is not None)
    outputs = draw(
        st.lists(st.sampled_from(known), max_size=draw(st.sampled_from([0, 0, 1, 3])), unique=True)
    )
    if known[-1] not in outputs or builder.chance(8):
        outputs.append(known[-1])
    return Model("test", [Graph("main", inputs, outputs, nodes, constants), *builder.callees])


def ladder(count: int) -> Model:
    """A large model of `count` nodes: residual blocks of five, each with weights of its own."""
    type = TensorType(F32, (1, 8))
    graph = Graph("main", [Value("x", type)])
    newest = skip = graph.inputs[0]
    for index in range(count):
        weight = Value(f"w{index}", type, Constant.of(b""))
        made = Value(f"v{index}", type)
        graph.constants.append(weight)
        joins = index % 5 == 4
        graph.nodes.append(
            Node("test.a", [newest, weight, skip] if joins else [newest, weight], [made])
        )
        newest = made
        skip = made if joins else skip
    graph.outputs.append(newest)
    return Model("test", [graph])
