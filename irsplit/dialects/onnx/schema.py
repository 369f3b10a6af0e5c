"""Field keys (number << 3 | wire type) of the messages in onnx.proto, and its element types.

A field whose wire type differs from the schema has another key. It is carried along as an unknown
field, as protobuf does it.
"""

from irsplit.base import dtypes
from irsplit.base.dtypes import DType

MODEL_IR_VERSION = 1 << 3
MODEL_GRAPH = 7 << 3 | 2
MODEL_OPSET = 8 << 3 | 2
MODEL_METADATA = 14 << 3 | 2
MODEL_TRAINING = 20 << 3 | 2
MODEL_FUNCTION = 25 << 3 | 2

OPSET_DOMAIN = 1 << 3 | 2
OPSET_VERSION = 2 << 3

GRAPH_NODE = 1 << 3 | 2
GRAPH_NAME = 2 << 3 | 2
GRAPH_INITIALIZER = 5 << 3 | 2
GRAPH_INPUT = 11 << 3 | 2
GRAPH_OUTPUT = 12 << 3 | 2
GRAPH_VALUE_INFO = 13 << 3 | 2
GRAPH_ANNOTATION = 14 << 3 | 2
GRAPH_SPARSE = 15 << 3 | 2

FUNCTION_NAME = 1 << 3 | 2
FUNCTION_INPUT = 4 << 3 | 2
FUNCTION_OUTPUT = 5 << 3 | 2
FUNCTION_NODE = 7 << 3 | 2
FUNCTION_OPSET = 9 << 3 | 2
FUNCTION_DOMAIN = 10 << 3 | 2
FUNCTION_VALUE_INFO = 12 << 3 | 2
FUNCTION_OVERLOAD = 13 << 3 | 2

NODE_INPUT = 1 << 3 | 2
NODE_OUTPUT = 2 << 3 | 2
NODE_NAME = 3 << 3 | 2
NODE_OP = 4 << 3 | 2
NODE_ATTRIBUTE = 5 << 3 | 2
NODE_DOMAIN = 7 << 3 | 2
NODE_OVERLOAD = 8 << 3 | 2

ATTRIBUTE_NAME = 1 << 3 | 2
ATTRIBUTE_FLOAT = 2 << 3 | 5
ATTRIBUTE_INT = 3 << 3
ATTRIBUTE_STRING = 4 << 3 | 2
ATTRIBUTE_TENSOR = 5 << 3 | 2
ATTRIBUTE_GRAPH = 6 << 3 | 2
ATTRIBUTE_FLOATS = 7 << 3 | 5
ATTRIBUTE_FLOATS_PACKED = 7 << 3 | 2
ATTRIBUTE_INTS = 8 << 3
ATTRIBUTE_INTS_PACKED = 8 << 3 | 2
ATTRIBUTE_STRINGS = 9 << 3 | 2
ATTRIBUTE_TENSORS = 10 << 3 | 2
ATTRIBUTE_GRAPHS = 11 << 3 | 2
ATTRIBUTE_BODIES = (ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS)
ATTRIBUTE_TYPE = 20 << 3
ATTRIBUTE_SPARSE = 22 << 3 | 2

TENSOR_DIMS = 1 << 3
TENSOR_DIMS_PACKED = 1 << 3 | 2
TENSOR_TYPE = 2 << 3
TENSOR_FLOATS_PACKED = 4 << 3 | 2
TENSOR_NAME = 8 << 3 | 2
TENSOR_RAW = 9 << 3 | 2
TENSOR_DOUBLES_PACKED = 10 << 3 | 2
TENSOR_EXTERNAL = 13 << 3 | 2
TENSOR_LOCATION = 14 << 3
LOCATION_EXTERNAL = 1
TYPED_FIELDS = frozenset({4, 5, 6, 7, 10, 11})
"""Field numbers of TensorProto's typed element fields."""

SPARSE_VALUES = 1 << 3 | 2
SPARSE_DIMS = 3 << 3
SPARSE_DIMS_PACKED = 3 << 3 | 2

ENTRY_KEY = 1 << 3 | 2
ENTRY_VALUE = 2 << 3 | 2
ANNOTATION_TENSOR = 1 << 3 | 2
ANNOTATION_PARAMETER = 2 << 3 | 2

INFO_NAME = 1 << 3 | 2
INFO_TYPE = 2 << 3 | 2
TYPE_TENSOR = 1 << 3 | 2
TYPE_SEQUENCE = 4 << 3 | 2
TYPE_MAP = 5 << 3 | 2
TYPE_OPAQUE = 7 << 3 | 2
TYPE_SPARSE = 8 << 3 | 2
TYPE_OPTIONAL = 9 << 3 | 2
ELEMENT_TYPE = 1 << 3
ELEMENT_SHAPE = 2 << 3 | 2
NESTED_TYPE = 1 << 3 | 2
MAP_KEY = 1 << 3
MAP_VALUE = 2 << 3 | 2
SHAPE_DIM = 1 << 3 | 2
DIM_VALUE = 1 << 3
DIM_SYMBOL = 2 << 3 | 2

ELEMENT_TYPES: dict[int, DType] = {
    1: dtypes.F32, 2: dtypes.U8, 3: dtypes.I8, 4: dtypes.U16, 5: dtypes.I16,
    6: dtypes.I32, 7: dtypes.I64, 8: dtypes.STR, 9: dtypes.BOOL, 10: dtypes.F16,
    11: dtypes.F64, 12: dtypes.U32, 13: dtypes.U64, 14: dtypes.C64, 15: dtypes.C128,
    16: dtypes.BF16, 17: dtypes.F8E4M3FN, 18: dtypes.F8E4M3FNUZ, 19: dtypes.F8E5M2,
    20: dtypes.F8E5M2FNUZ, 21: dtypes.U4, 22: dtypes.I4, 23: dtypes.F4E2M1,
    24: dtypes.F8E8M0, 25: dtypes.U2, 26: dtypes.I2,
}  # fmt: skip
"""Element types by their numbers in TensorProto.DataType."""

ELEMENT_CODES: dict[DType, int] = {dtype: code for code, dtype in ELEMENT_TYPES.items()}

DEFAULT_DOMAINS = ("", "ai.onnx")
SIZE_LIMIT = 2**31 - 1
"""Most bytes of a model file: protobuf refuses messages of 2 GiB and more."""
