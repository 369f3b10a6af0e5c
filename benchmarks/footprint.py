"""What the C core takes of a device: code, stack, and the buffers of one boundary.

`python -m benchmarks.footprint` writes docs/footprint.md.

Code is what the linker keeps of the core for the functions that a firmware calls. Stack is the
deepest path of calls through it, by the call graph with frame sizes that gcc writes
(`-fcallgraph-info=su`); there is no recursion and no array of variable size, or this script fails.
Neither counts libc and the compiler's own helpers.
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tables import markdown
from irsplit import compile_model
from irsplit.codec_training.header import c_header
from irsplit.compilation.compiler import whole_model
from irsplit.engines.inputs import load_calls
from irsplit.runtime.bundle.manifest import Manifest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "footprint.md"
SOURCES = [ROOT / "runtime" / "c" / "irs.c"]
INCLUDE = f"-I{ROOT / 'runtime' / 'c' / 'include'}"
DIGITS = ROOT / "examples" / "digits"
HOOKED = re.compile(r"\bframe(_decode)?\.c:")
"""Where the core calls the codec hooks of its caller: the only calls through a pointer."""

SEND = ("irs_schema_open", "irs_encode")
BOTH = (*SEND, "irs_frame_dims", "irs_decode")
Use = tuple[str, tuple[str, ...], tuple[str, ...]]
USES: tuple[Use, ...] = (
    ("sends, 8-bit elements", SEND, ("-DIRS_ENCODE_ONLY", "-DIRS_BYTES_ONLY")),
    ("sends", SEND, ("-DIRS_ENCODE_ONLY",)),
    ("sends and receives", BOTH, ()),
)
"""What a firmware does, the functions that it calls, and what leaves out the rest."""
STACKS = ("irs_schema_open", "irs_encode", "irs_decode")
CODINGS = (("int8", "raw"), ("int8", "static-rans"), ("lossless", "static-rans"))
"""How the boundary of the example is made: --quantize and --codec."""


@dataclass(frozen=True)
class Machine:
    name: str
    compiler: str
    flags: tuple[str, ...]

    @property
    def size(self) -> str:
        """The program that tells sections of a linked file."""
        return self.compiler.removesuffix("gcc") + "size"


MACHINES = (
    Machine("Cortex-M0+", "arm-none-eabi-gcc", ("-mcpu=cortex-m0plus", "-mthumb", "-Os")),
    Machine(
        "Cortex-M4",
        "arm-none-eabi-gcc",
        ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-Os"),
    ),
    Machine("aarch64", "aarch64-linux-gnu-gcc", ("-Os",)),
    Machine("x86-64", "gcc", ("-Os", "-DIRS_PORTABLE")),
)
CORTEX_M4 = MACHINES[1]


def code_bytes(machine: Machine, entries: Sequence[str], flags: Sequence[str], folder: Path) -> int:
    """Bytes of code and constants that a firmware links when it calls `entries`."""
    stub, program = folder / "stub.c", folder / "firmware.elf"
    declarations = "".join(f"void {entry}(void);\n" for entry in entries)
    keep = "; keep = ".join(entries)
    stub.write_text(
        f"{declarations}void (*volatile keep)(void);\nvoid start(void) {{ keep = {keep}; }}\n"
    )
    options = (
        "-std=c99",
        "-ffreestanding",
        "-nostdlib",
        "-static",
        "-ffunction-sections",
        "-fdata-sections",
    )
    linking = (
        "-Wl,--gc-sections",
        "-Wl,-e,start",
        "-Wl,--unresolved-symbols=ignore-all",
        "-Wl,--build-id=none",
    )
    files = [*map(str, SOURCES), str(stub), "-o", str(program)]
    subprocess.run(
        [machine.compiler, *options, *machine.flags, *flags, *linking, INCLUDE, *files], check=True
    )
    lines = subprocess.run(
        [machine.size, program], capture_output=True, text=True, check=True
    ).stdout
    return sum(map(int, lines.splitlines()[1].split()[:2]))


def stack_bytes(
    machine: Machine, entries: Sequence[str], flags: Sequence[str], folder: Path
) -> list[int]:
    """The deepest stack of a call of each of `entries`, without the caller's frame."""
    command = [
        machine.compiler,
        "-std=c99",
        "-ffreestanding",
        *machine.flags,
        *flags,
        "-fcallgraph-info=su",
        INCLUDE,
    ]
    subprocess.run([*command, "-c", *map(str, SOURCES)], cwd=folder, check=True)
    frames, calls = call_graph("\n".join(path.read_text() for path in sorted(folder.glob("*.ci"))))
    return [deepest(entry, frames, calls) for entry in entries]


def call_graph(text: str) -> tuple[dict[str, int], dict[str, set[str]]]:
    """Bytes of each function's frame, and whom it calls.

    Raises ValueError where neither is known: a frame of variable size, a call through a pointer
    that is no hook.
    """
    frames: dict[str, int] = {}
    for name, label in re.findall(r'node: \{ title: "([^"]+)" label: "([^"]+)"', text):
        for count, kind in re.findall(r"(\d+) bytes \((\w+)\)", label):
            if kind != "static":
                raise ValueError(f"{name} has a frame of variable size")
            frames[name] = int(count)
    calls: dict[str, set[str]] = {}
    edge = r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"(?: label: "([^"]+)")?'
    for caller, callee, place in re.findall(edge, text):
        if callee == "__indirect_call" and not HOOKED.search(place):
            raise ValueError(f"{caller} calls through a pointer at {place}")
        calls.setdefault(caller, set()).add(callee)
    return frames, calls


def deepest(
    function: str,
    frames: Mapping[str, int],
    calls: Mapping[str, set[str]],
    above: tuple[str, ...] = (),
) -> int:
    """Bytes of the deepest path of calls from a function. Raises ValueError for recursion."""
    if function in above:
        raise ValueError(f"recursion: {' > '.join((*above, function))}")
    below = [
        deepest(callee, frames, calls, (*above, function)) for callee in calls.get(function, ())
    ]
    return frames.get(function, 0) + max(below, default=0)


def footprints(machine: Machine, uses: Sequence[Use] = USES) -> list[list[str]]:
    """A row for each thing that a firmware may want of the core."""
    rows: list[list[str]] = []
    for label, entries, flags in uses:
        with tempfile.TemporaryDirectory(prefix="irsplit-") as name:
            folder = Path(name)
            code = code_bytes(machine, entries, flags, folder)
            stacks = dict(zip(entries, stack_bytes(machine, entries, flags, folder), strict=True))
        cells = [f"{stacks[entry]} B" if entry in stacks else "" for entry in STACKS]
        rows.append([machine.name, label, f"{code} B", *cells])
    return rows


def buffers(codings: Sequence[tuple[str, str]] = CODINGS) -> list[list[str]]:
    """Static bytes of the C example for one boundary, by codec: what boundary.h says."""
    _, infos = whole_model(DIGITS / "digits.tflite")
    calls = load_calls([DIGITS / "pictures"], infos)
    rows: list[list[str]] = []
    for boundary, codec in codings:
        with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
            compile_model(
                DIGITS / "digits.tflite",
                folder,
                ["bottleneck/relu"],
                boundary=boundary,
                codec=codec,
                calibration=calls,
            )
            found = Manifest.load(folder).boundaries[0]
        header = c_header(found, 1)
        names = ("MEMORY_SIZE", "WORKSPACE_SIZE", "FRAME_BOUND", "TENSOR0_SIZE")
        sizes = [re.findall(rf"_{name} (\d+)", header)[0] for name in names]
        rows.append(
            [
                f"{boundary}, {codec}",
                *(f"{size} B" for size in (str(len(found.to_bytes())), *sizes)),
            ]
        )
    return rows


def page() -> str:
    versions = {machine.compiler: _version(machine.compiler) for machine in MACHINES}
    compilers = ", ".join(f"{name} {version}" for name, version in versions.items())
    head = ["machine", "what it does", "code", f"stack: {STACKS[0]}", *STACKS[1:]]
    code = markdown(head, [row for machine in MACHINES for row in footprints(machine)])
    static = markdown(
        ["boundary", "descriptor", "opened", "workspace", "frame at most", "tensor"], buffers()
    )
    return (
        "# Footprint of the C core\n\n"
        f"Made by `python -m benchmarks.footprint` ({compilers}; `-Os`).\n\n"
        "Code is what the linker keeps with `--gc-sections`; stack is the deepest path of calls, "
        "by the compiler's call graph with frame sizes. Both are without libc (`memcpy` and "
        "friends), the compiler's helpers and the caller's own codec hooks. There is no heap, no "
        "recursion, no array of variable size: these are bounds.\n\n"
        f"{code}\n\n"
        "The buffers are the caller's, of sizes that `boundary.h` tells. Those of `examples/c`, "
        "for the boundary of the digits example (64 floats):\n\n"
        f"{static}\n\n"
        "`opened` is written once by `irs_schema_open` and only read after that, the descriptor "
        "may stay in flash; sizes are those of a 64-bit machine, which no smaller one exceeds.\n"
    )


def _version(compiler: str) -> str:
    done = subprocess.run(
        [compiler, "-dumpfullversion"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
