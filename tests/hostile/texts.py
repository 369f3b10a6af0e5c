"""Build files, IR text, pipelines and tokens."""

import tempfile
from argparse import Namespace
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random

from hostile.asking import DIGITS, ask
from hostile.damage import damaged
from hostile.profiles import damaged_toml
from hostile.target import Target
from irsplit.adapters import metadata
from irsplit.commands.token import token_of
from irsplit.compilation.build import BuildFile
from irsplit.ir import parse_model, print_model
from irsplit.passes import Pipeline

_BUILD = f"""
output = "build"
[defaults]
codec = "zstandard"
[targets.digits-lte]
model = "{DIGITS}"
device = "pixel-2"
link = "lte"
limit = ["memory=64MB"]
[targets.digits-int8]
model = "{DIGITS}"
quantize = "int8"
calibration = ["pictures"]
werror = true
external-over = 100
"""


def build_files(seed: int, count: int) -> Iterator[bytes]:
    random = Random(seed)
    for _ in range(count):
        yield damaged_toml(_BUILD, random)


def check_build_file(mutant: bytes, folder: Path) -> None:
    """Everything up to the compilations, which fail at once: no build file has that target."""
    path = folder / "build.toml"
    path.write_bytes(mutant)
    build = BuildFile.load(path)
    for target in build.targets:
        build.inputs(target)
        assert build.bundle(target).parent == build.output
    ask("compile", path, "--target", "no such target")


@cache
def _ir_texts() -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.irs"
        ask(
            "opt",
            DIGITS,
            "-o",
            path,
            "--pipeline",
            "partition{cut=bottleneck/relu},compress-boundary{codec=zstandard}",
        )
        digits = path.read_text()
    small = (
        "graph @g(%x: f32[n,?,8] sized(1, 2, 8)) -> (%y) { "
        "const %w: i8[4] q(0.5:1, 0.25:0; axis 0) = 0x01020304\n"
        '%y = test.op(%x, %w, _) "a \\u00e9" calls @f states "s" random '
        "{a = [1, -2.5e3, null], b = 0x00} : f32[*]\n"
        'with { graph @body() -> (%x) {} } }\ngraph @f(%a: !"seq(f32)") -> (%a) {}'
    )
    return digits, small


_ODD = (
    "9" * 5000,
    "[" * 3000,
    '"\\q"',
    '"\\ud800"',
    "0x0",
    "1e999",
    "nan",
    "{",
    "}",
    "%",
    "with { graph @g() {",
    "\x1b[2J",
    "-99999999999999999999",
    "_",
    "",
)


def ir_texts(seed: int, count: int) -> Iterator[bytes]:
    random = Random(seed)
    for _ in range(count):
        text = random.choice(_ir_texts())
        kind = random.random()
        if kind < 0.03:
            depth = random.choice((50, 300, 5000))
            text = (
                "graph @g() { test.a()"
                + " with { graph @b() { test.a()" * depth
                + " } }" * depth
                + " }"
            )
        elif kind < 0.6:
            words = text.split(" ")
            words[random.randrange(len(words))] = random.choice((*_ODD, random.choice(words)))
            text = " ".join(words)
        else:
            yield damaged(text.encode(), random)
            continue
        yield text.encode(errors="surrogatepass")


def read_ir_text(mutant: bytes, folder: Path) -> None:
    """What is taken prints and parses back to the same text."""
    path = folder / "model.irs"
    path.write_bytes(mutant)
    ask("opt", path, "-o", folder / "out.irs", "--pipeline", "remove-unused")
    text = (folder / "out.irs").read_text()
    assert print_model(parse_model(text)) == text


_PIPELINE = (
    'rematerialise,partition{cut=12 cut="block 3/add" max-tensors=2},'
    "quantize-boundary{bits=8 per-channel=true agreement=0.9}"
)


def pipelines(seed: int, count: int) -> Iterator[str]:
    random = Random(seed)
    for _ in range(count):
        text = damaged(_PIPELINE.encode(), random).decode(errors="replace")
        if random.random() < 0.5:
            text = _PIPELINE.replace(
                random.choice(("12", "2", "8", "true", "0.9", "partition")), random.choice(_ODD)
            )
        yield text


def read_pipeline(mutant: str, folder: Path) -> None:
    found = Pipeline.parse(mutant)
    assert Pipeline.parse(str(found)) == found


def tokens(seed: int, count: int) -> Iterator[bytes]:
    random = Random(seed)
    for _ in range(count):
        yield random.choice((b"", b"\xff", b"\0", b"x" * 100_000, damaged(b"secret\n", random)))


def read_token(mutant: bytes, folder: Path) -> None:
    path = folder / "token"
    path.write_bytes(mutant)
    assert token_of(Namespace(token_file=path)).strip()


def descriptors(seed: int, count: int) -> Iterator[str]:
    random = Random(seed)
    text = '{"tensors": [], "descriptor": "SVJTRAEAAAA="}'
    for _ in range(count):
        yield random.choice(
            (
                "[" * 100_000,
                "[]",
                '{"descriptor": 5}',
                damaged(text.encode(), random).decode("latin-1"),
            )
        )


def read_descriptor(mutant: str, folder: Path) -> None:
    metadata._parsed(mutant)


TARGETS = (
    Target("texts: build file", build_files, check_build_file),
    Target("texts: IR text", ir_texts, read_ir_text),
    Target("texts: pipeline", pipelines, read_pipeline),
    Target("texts: token", tokens, read_token),
    Target("texts: boundary in metadata", descriptors, read_descriptor),
)
