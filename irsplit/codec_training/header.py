"""boundary.h: everything a firmware needs to frame one boundary with the C core, as constants."""

import math
from collections.abc import Mapping, Sequence

from irsplit.base.errors import UnsupportedError
from irsplit.runtime.frame.descriptor import FrameSchema, TensorSpec
from irsplit.runtime.frame.frame import frame_sizes

_PREAMBLE = """\
/* {boundary}
 *
 * Made by irsplit; do not edit. Give these bytes to irs_schema_open (irs.h), once:
 *
 *     static unsigned char memory[{prefix}_MEMORY_SIZE];   (16-byte aligned, like the workspace)
 *     irs_schema *schema;
 *     irs_schema_open(&schema, memory, sizeof memory, {name}_descriptor, sizeof {name}_descriptor);
 */"""


def c_header(
    boundary: FrameSchema, symbolic: int | None = None, dims: Mapping[str, int] | None = None
) -> str:
    """C header of a boundary. Sizes are those of a 64-bit machine, which no smaller machine exceeds.

    `symbolic` is the size that this firmware gives to every open dimension, such as its batch, and `dims` that of some,
    by "<tensor>.<axis>"; frames carry them. Raises UnsupportedError where one has neither: a firmware's buffers have
    fixed sizes.
    """
    given = dims or {}
    open_dims = [
        f"{spec.name}.{axis}"
        for spec in boundary.tensors
        for axis, dim in enumerate(spec.shape)
        if dim is None
    ]
    missing = [dim for dim in open_dims if symbolic is None and dim not in given]
    if missing:
        raise UnsupportedError(
            f"{boundary}: boundary.h needs static shapes; say the size of the symbolic dims (--dim N), or of each of "
            f"{', '.join(missing)} (--dim NAME=N)"
        )
    shapes = [_shape(spec, symbolic or 0, given) for spec in boundary.tensors]
    sizes = frame_sizes(boundary, shapes)
    name = f"irs_boundary{boundary.index}"
    prefix = name.upper()
    descriptor = boundary.to_bytes()
    lines = [
        _PREAMBLE.format(boundary=_comment(str(boundary)), prefix=prefix, name=name),
        f"#ifndef {prefix}_H",
        f"#define {prefix}_H",
        "",
        f"#define {prefix}_TENSOR_COUNT {len(boundary.tensors)}",
        f"#define {prefix}_MEMORY_SIZE {sizes.memory_bytes}",
        f"#define {prefix}_WORKSPACE_SIZE {sizes.workspace_bytes}",
        f"#define {prefix}_FRAME_BOUND {sizes.frame_bytes}",
    ]
    for index, (spec, shape) in enumerate(zip(boundary.tensors, shapes, strict=True)):
        lines += _tensor_lines(f"{prefix}_TENSOR{index}", spec, shape)
    lines += ["", f"static const unsigned char {name}_descriptor[{len(descriptor)}] = {{"]
    lines += [
        "    " + ", ".join(f"{byte}" for byte in descriptor[at : at + 20]) + ","
        for at in range(0, len(descriptor), 20)
    ]
    return "\n".join([*lines, "};", "", "#endif", ""])


def _shape(spec: TensorSpec, symbolic: int, given: Mapping[str, int]) -> list[int]:
    return [
        given.get(f"{spec.name}.{axis}", symbolic) if dim is None else dim
        for axis, dim in enumerate(spec.shape)
    ]


def _tensor_lines(prefix: str, spec: TensorSpec, shape: Sequence[int]) -> list[str]:
    dims = ", ".join(map(str, shape))
    size = math.prod(shape) * spec.storage.itemsize
    return [
        "",
        f"/* {_comment(spec.name)}: {spec.dtype}[{dims}], codec {spec.codec} */",
        f"#define {prefix}_SIZE {size}",
        f"#define {prefix}_DIMS {{{dims or 0}}}",
    ]


def _comment(text: str) -> str:
    """Text that cannot end a comment or leave ASCII."""
    return text.encode("ascii", "backslashreplace").decode().replace("*/", "* /").replace("\n", " ")
