"""Every legal cut of the corpus: the segments compute what the engine computes of the whole.

As a script (`python tests/every_cut.py --cuts 60 -o docs/coverage.md`) it writes the coverage
table. Models are run in this process, one thread, optimisations off, over a sequence of calls;
files of the corpus that run are trusted.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import corpus
from corpus import CorpusModel
from irsplit.base.errors import IrsplitError
from irsplit.compilation.old_names import compile_model
from irsplit.dialects.registry import dialect_of
from irsplit.engines.execute import EXACT
from irsplit.passes import Context, Cut, find_cuts
from irsplit.passes.rematerialise import Rematerialise
from irsplit.runtime.run.session import LocalSession
from stock_engines import open_model, same_bits

CALLS = 2
TOLERANCE = 1e-2


@dataclass(frozen=True)
class Cuts:
    """The legal cuts of a model: one tensor, with side values recomputed, up to four tensors."""

    plain: list[Cut]
    rematerialised: list[Cut]
    frontiers: list[Cut]


def legal_cuts(model: CorpusModel) -> Cuts:
    dialect = dialect_of(model.path)
    loaded = dialect.read(model.path)
    context = Context(dialect)
    Rematerialise().run(loaded, context)
    found = [
        find_cuts(loaded.entry),
        find_cuts(loaded.entry, recompute=context.recompute),
        find_cuts(loaded.entry, 4, recompute=context.recompute),
    ]
    return Cuts(*([cut for cut in cuts if cut.legal] for cuts in found))


def sample(cuts: Sequence[Cut], count: int) -> list[Cut]:
    """At most `count` cuts, evenly spread, the first and the last among them."""
    if len(cuts) <= count:
        return list(cuts)
    return [cuts[int(place)] for place in np.linspace(0, len(cuts) - 1, count)]


def failures(model: CorpusModel, cuts: Sequence[Cut], max_tensors: int = 1) -> list[str]:
    """What is wrong at these cuts: nothing, when the outputs of all calls are equal bit for bit."""
    entry = dialect_of(model.path).read(model.path).entry
    inputs = [value.name for value in entry.inputs if value.constant is None]
    outputs = [value.name for value in entry.outputs]
    calls = corpus.feeds(model, CALLS)
    engine = open_model(model.path, optimized=model.needs_delegate)
    expected = [engine.run(values) for values in calls]
    wrong: list[str] = []
    for cut in cuts:
        with tempfile.TemporaryDirectory(prefix="irsplit-") as folder:
            bundle = Path(folder) / "bundle"
            try:
                compile_model(
                    model.path,
                    bundle,
                    [cut.id],
                    max_tensors=max_tensors,
                    codec="raw",
                    remember=False,
                )
                session = LocalSession(bundle, replace(EXACT, optimize=model.needs_delegate))
                given = [session.run(dict(zip(inputs, values, strict=True))) for values in calls]
            except IrsplitError as error:
                wrong.append(f"{model.name}, cut {cut.id}: {error}")
                continue
        found = [[results[name] for name in outputs] for results in given]
        same = _close if is_rounded(model) else same_bits
        if not all(map(same, expected, found)):
            wrong.append(f"{model.name}, cut {cut.id}: outputs differ")
    return wrong


def is_rounded(model: CorpusModel) -> bool:
    """Whether the engine computes across the cut at a higher precision than the tensors there have.

    The default delegate fuses operators, and onnxruntime runs half precision in single precision
    between two casts.
    """
    return model.needs_delegate or model.name == "squeezenet_fp16.onnx"


def _close(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> bool:
    pairs = [
        (a.astype(np.float64), b.astype(np.float64)) for a, b in zip(expected, found, strict=True)
    ]
    return all(np.abs(a - b).max() <= TOLERANCE * np.abs(a).max() for a, b in pairs)


def row(model: CorpusModel, count: int) -> tuple[str, list[str]]:
    """A line of the table, and what failed."""
    try:
        cuts = legal_cuts(model)
    except IrsplitError as error:
        return f"| {model.name} | - | - | - | refused: {type(error).__name__} |", []
    strict = sum(cut.kind == "strict" for cut in cuts.plain)
    numbers = f"{strict} / {len(cuts.plain)} | {len(cuts.rematerialised)} | {len(cuts.frontiers)}"
    if not model.runs:
        return f"| {model.name} | {numbers} | the stock engine does not run it |", []
    chosen = sample(cuts.rematerialised, count)
    wider = [cut for cut in cuts.frontiers if cut.kind == "frontier"]
    widest = sample(wider, max(1, count // 4))
    wrong = failures(model, chosen) + failures(model, widest, 4)
    verified = f"{len(chosen) + len(widest) - len(wrong)} of {len(chosen) + len(widest)}"
    return f"| {model.name} | {numbers} | {verified} |", wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Verify the legal cuts of the corpus and write the coverage table."
    )
    parser.add_argument(
        "--cuts", type=int, default=60, help="at most so many cuts of a model, evenly spread"
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    lines = [
        "# Coverage of the corpus",
        "",
        f"Written by `python tests/every_cut.py --cuts {arguments.cuts} -o docs/coverage.md`. "
        "Legal cuts: strict / all with one tensor; the same with side values rematerialised; with "
        f"up to four tensors. Verified: cuts (of the second kind, at most {arguments.cuts} a "
        "model evenly spread, and frontiers, a quarter as many) whose segments give the outputs "
        f"of the whole bit for bit over {CALLS} calls, the engine's optimisations off; where an "
        "engine keeps more precision inside than the tensors have (see is_rounded), within "
        f"{TOLERANCE} of the largest value.",
        "",
        "| model | strict / one tensor | rematerialised | up to 4 tensors | verified bit-equal |",
        "|---|---|---|---|---|",
    ]
    wrong: list[str] = []
    for model in (*corpus.load("models"), *corpus.load("micro")):
        begun = time.monotonic()
        line, failed = row(model, arguments.cuts)
        print(
            f"{line} {time.monotonic() - begun:.1f} s",
            *failed,
            sep="\n  ",
            file=sys.stderr,
            flush=True,
        )
        lines.append(line)
        wrong += failed
    lines += [
        "",
        "## Failures",
        "",
        *(f"* {text.splitlines()[0]}" for text in wrong or ["none"]),
        "",
    ]
    arguments.output.write_text("\n".join(lines), encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
