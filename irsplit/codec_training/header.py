"""Write boundary.h: all that a firmware needs to frame one boundary with the C core."""

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
_BYTES_PER_LINE = 20


def c_header(
    boundary: FrameSchema, symbolic: int | None = None, dims: Mapping[str, int] | None = None
) -> str:
    """Return the C header of a boundary.

    The buffers of a firmware have fixed sizes, so every dim needs one. The sizes of the buffers
    are those of a 64-bit machine, which no smaller machine exceeds.

    Args:
        boundary: The schema of the boundary's frames.
        symbolic: The size of every open dim that is not in `dims`, such as the batch.
        dims: Sizes of open dims by "<tensor>.<axis>".

    Returns:
        The text of boundary.h.

    Raises:
        UnsupportedError: An open dim has no size.
    """
    sizes_by_dim = dims or {}
    if symbolic is None:
        _check_dims(boundary, sizes_by_dim)
    shapes = [_shape(spec, symbolic or 0, sizes_by_dim) for spec in boundary.tensors]
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
    for start in range(0, len(descriptor), _BYTES_PER_LINE):
        numbers = ", ".join(str(byte) for byte in descriptor[start : start + _BYTES_PER_LINE])
        lines.append(f"    {numbers},")
    return "\n".join([*lines, "};", "", "#endif", ""])


def _check_dims(boundary: FrameSchema, dims: Mapping[str, int]) -> None:
    """Raise UnsupportedError if an open dim has no size."""
    missing: list[str] = []
    for spec in boundary.tensors:
        for axis, dim in enumerate(spec.shape):
            name = f"{spec.name}.{axis}"
            if dim is None and name not in dims:
                missing.append(name)
    if missing:
        raise UnsupportedError(
            f"{boundary}: boundary.h needs static shapes; say the size of the symbolic dims "
            f"(--dim N), or of each of {', '.join(missing)} (--dim NAME=N)"
        )


def _shape(spec: TensorSpec, symbolic: int, dims: Mapping[str, int]) -> list[int]:
    """The shape of a tensor, with a size for each open dim."""
    shape: list[int] = []
    for axis, dim in enumerate(spec.shape):
        shape.append(dims.get(f"{spec.name}.{axis}", symbolic) if dim is None else dim)
    return shape


def _tensor_lines(prefix: str, spec: TensorSpec, shape: Sequence[int]) -> list[str]:
    """The constants of one tensor."""
    dims = ", ".join(map(str, shape))
    size = math.prod(shape) * spec.storage.itemsize
    return [
        "",
        f"/* {_comment(spec.name)}: {spec.dtype}[{dims}], codec {spec.codec} */",
        f"#define {prefix}_SIZE {size}",
        f"#define {prefix}_DIMS {{{dims or 0}}}",
    ]


def _comment(text: str) -> str:
    """Text that neither ends a C comment nor leaves ASCII."""
    return text.encode("ascii", "backslashreplace").decode().replace("*/", "* /").replace("\n", " ")
