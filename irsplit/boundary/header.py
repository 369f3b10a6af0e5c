"""boundary.h: everything a firmware needs to frame one boundary with the C core, as constants."""

from irsplit.errors import UnsupportedError
from irsplit.runtime.boundary import Boundary, TensorSpec
from irsplit.runtime.frame import boundary_sizes

_PREAMBLE = """\
/* {boundary}
 *
 * Made by irsplit; do not edit. Give these bytes to irs_boundary_open (irs.h), once:
 *
 *     static unsigned char memory[{prefix}_MEMORY_SIZE];   (16-byte aligned, like the workspace)
 *     irs_boundary *boundary;
 *     irs_boundary_open(&boundary, memory, sizeof memory, {name}_descriptor, sizeof {name}_descriptor);
 */"""


def c_header(boundary: Boundary) -> str:
    """C header of a boundary. Sizes are those of a 64-bit machine, which no smaller machine exceeds.

    Raises UnsupportedError for symbolic dims: a firmware's buffers have fixed sizes.
    """
    if boundary.symbol_count:
        raise UnsupportedError(f"{boundary}: boundary.h needs static shapes; fix the symbolic dims of the model first")
    sizes = boundary_sizes(boundary)
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
        lines += _tensor_lines(f"{prefix}_TENSOR{index}", spec)
    lines += ["", f"static const unsigned char {name}_descriptor[{len(descriptor)}] = {{"]
    lines += [
        "    " + ", ".join(f"{byte}" for byte in descriptor[at : at + 20]) + "," for at in range(0, len(descriptor), 20)
    ]
    return "\n".join([*lines, "};", "", "#endif", ""])


def _tensor_lines(prefix: str, spec: TensorSpec) -> list[str]:
    dims = ", ".join(str(dim) for dim in spec.shape)
    size = spec.storage.itemsize
    for dim in spec.shape:
        size *= dim or 0
    return [
        "",
        f"/* {_comment(spec.name)}: {spec.dtype}[{dims}], codec {spec.codec} */",
        f"#define {prefix}_SIZE {size}",
        f"#define {prefix}_DIMS {{{dims or 0}}}",
    ]


def _comment(text: str) -> str:
    """Text that cannot end a comment or leave ASCII."""
    return text.encode("ascii", "backslashreplace").decode().replace("*/", "* /").replace("\n", " ")
