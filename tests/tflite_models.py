"""Small TFLite models for tests, made by LiteRT's objects and so independent of irsplit."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

ELEMENTS = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int8": schema.TensorType.INT8,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "bool": schema.TensorType.BOOL,
    "string": schema.TensorType.STRING,
    "resource": schema.TensorType.RESOURCE,
    "int4": schema.TensorType.INT4,
    "int2": schema.TensorType.INT2,
    "uint4": schema.TensorType.UINT4,
}


@dataclass
class Sketch:
    """A model in the making; `subgraph` starts a graph, `tensor` and `operator` add to it."""

    model: Any = field(default_factory=lambda: schema.ModelT(version=3))

    def __post_init__(self) -> None:
        self.model.subgraphs, self.model.operatorCodes = [], []
        self.model.buffers = [schema.BufferT()]
        self.codes: dict[str, int] = {}

    @property
    def graph(self) -> Any:
        return self.model.subgraphs[-1]

    def subgraph(self, name: str) -> int:
        self.model.subgraphs.append(
            schema.SubGraphT(name=name, tensors=[], operators=[], inputs=[], outputs=[])
        )
        return len(self.model.subgraphs) - 1

    def tensor(
        self, name: str, shape: tuple[int, ...] = (), element: str = "float32", **fields: Any
    ) -> int:
        tensor = schema.TensorT(
            name=name, shape=list(shape), type=ELEMENTS[element], hasRank=True, **fields
        )
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def input(
        self, name: str, shape: tuple[int, ...] = (), element: str = "float32", **fields: Any
    ) -> int:
        index = self.tensor(name, shape, element, **fields)
        self.graph.inputs.append(index)
        return index

    def constant(self, name: str, values: NDArray[Any], **fields: Any) -> int:
        return self.tensor(
            name, values.shape, str(values.dtype), buffer=self.buffer(values.tobytes()), **fields
        )

    def buffer(self, data: bytes) -> int:
        self.model.buffers.append(schema.BufferT(data=np.frombuffer(data, np.uint8)))
        return len(self.model.buffers) - 1

    def operator(
        self, name: str, inputs: list[int], outputs: list[int], options: Any = None, **fields: Any
    ) -> Any:
        """Append an operator by its name in the schema; lower case is a custom one's."""
        custom = name == name.lower()
        if name not in self.codes:
            number = (
                schema.BuiltinOperator.CUSTOM if custom else getattr(schema.BuiltinOperator, name)
            )
            code = schema.OperatorCodeT(deprecatedBuiltinCode=min(number, 127), builtinCode=number)
            code.customCode = name if custom else None
            self.codes[name] = len(self.model.operatorCodes)
            self.model.operatorCodes.append(code)
        operator = schema.OperatorT(
            opcodeIndex=self.codes[name], inputs=inputs, outputs=outputs, **fields
        )
        if options is not None:
            table = type(options).__name__[:-1]
            second = hasattr(schema.BuiltinOptions2, table)
            union = schema.BuiltinOptions2 if second else schema.BuiltinOptions
            setattr(operator, f"builtinOptions{'2' * second}Type", getattr(union, table))
            setattr(operator, f"builtinOptions{'2' * second}", options)
        self.graph.operators.append(operator)
        return operator

    def then(
        self, name: str, inputs: list[int], result: str, shape: tuple[int, ...] = (), **rest: Any
    ) -> int:
        """Append an operator with one float result, which is made too."""
        output = self.tensor(result, shape)
        self.operator(name, inputs, [output], **rest)
        return output

    def chain(self, *names: str, shape: tuple[int, ...] = (1, 2)) -> None:
        """From the input x through one ABS for each name to the graph's output."""
        value = self.input("x", shape)
        for name in names:
            value = self.then("ABS", [value], name, shape, options=schema.AbsOptionsT())
        self.graph.outputs.append(value)

    def save(self, path: Path) -> Path:
        builder = flatbuffers.Builder(1 << 12)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(builder.Output())
        return path
