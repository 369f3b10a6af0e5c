"""boundary.h: everything a firmware needs to frame one boundary with the C core, as constants."""

import math

from irsplit.base.errors import UnsupportedError
from irsplit.runtime.frame.descriptor import FrameSchema, TensorSpec
from irsplit.runtime.frame.frame import frame_sizes

_PREAMBLE = """\
/* {boundary}
 *
 * Made by irsplit; do not edit. Give these bytes to irs_boundary_open (irs.h), once:
 *
 *     static unsigned char memory[{prefix}_MEMORY_SIZE];   (16-byte aligned, like the workspace)
 *     irs_boundary *boundary;
 *     irs_boundary_open(&boundary, memory, sizeof memory, {name}_descriptor, sizeof {name}_descriptor);
 */"""


def c_header(boundary: FrameSchema, symbolic: int | None = None) -> str:
    """C header of a boundary. Sizes are those of a 64-bit machine, which no smaller machine exceeds.

    `symbolic` is the size that this firmware gives to every symbolic dim, such as its batch; frames carry it.
    Raises UnsupportedError for symbolic dims without it: a firmware's buffers have fixed sizes.
    """
    if boundary.symbol_count and symbolic is None:
        raise UnsupportedError(
            f"{boundary}: boundary.h needs static shapes; say the size of the symbolic dims (--dim N)"
        )
    sizes = frame_sizes(boundary, symbolic or 0)
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
    for index, spec in enumerate(boundary.tensors):
        lines += _tensor_lines(f"{prefix}_TENSOR{index}", spec, symbolic)
    lines += ["", f"static const unsigned char {name}_descriptor[{len(descriptor)}] = {{"]
    lines += [
        "    " + ", ".join(f"{byte}" for byte in descriptor[at : at + 20]) + ","
        for at in range(0, len(descriptor), 20)
    ]
    return "\n".join([*lines, "};", "", "#endif", ""])


def _tensor_lines(prefix: str, spec: TensorSpec, symbolic: int | None) -> list[str]:
    shape = [(symbolic or 0) if dim is None else dim for dim in spec.shape]
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
