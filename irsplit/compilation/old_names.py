"""Keep the names of 0.1 for one more release: `compile_model`, `verify_bundle`, `pack_bundle`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack, cast

from irsplit.base.progress import Progress, silent
from irsplit.compilation.compiler import Compiled, compile
from irsplit.compilation.options import CompileKeywords, CompileOptions, Pattern, Policy
from irsplit.compilation.pack import pack
from irsplit.compilation.samples import SampleSource
from irsplit.compilation.verification import Requirements, Verification, verify
from irsplit.dialects.base import WriteOptions
from irsplit.engines.execute import Inputs
from irsplit.passes.choose_cut import ChooseCut

pack_bundle = pack


class OldKeywords(CompileKeywords, total=False):
    """Keywords of `compile_model`: those of today, and those that have another name now."""

    boundary: str
    dim: Sequence[str]
    choose: ChooseCut | None
    options: WriteOptions


def compile_model(
    model: Path | str,
    folder: Path | str,
    cuts: Sequence[str] = (),
    *,
    calibration: SampleSource = (),
    progress: Progress = silent,
    **keywords: Unpack[OldKeywords],  # pyright: ignore[reportGeneralTypeIssues]
) -> Compiled:
    """Compile as `irsplit.compile` does, with old keywords and without a report by default.

    Args:
        model: The model file.
        folder: Where the bundle goes.
        cuts: The cuts to make; without any, the default one.
        calibration: Inputs of several calls.
        progress: Called before every pass.
        **keywords: Fields of `CompileOptions`, by their names of today or of 0.1.

    Returns:
        The manifest of the bundle, and what the passes said.
    """
    boundary = keywords.pop("boundary", "lossless")
    options = CompileOptions(
        cuts=cuts, dims=keywords.pop("dim", ()), quantize=boundary, report=False
    )

    choose = keywords.pop("choose", None)
    if choose is not None:
        options = options.replaced(
            device=choose.device,
            server=choose.server,
            link=choose.link,
            objective=choose.objective,
            limits=choose.limit,
            policy=cast(Policy, choose.rule),
            pattern=cast(Pattern, choose.pattern),
            load=choose.load,
        )

    layout = keywords.pop("options", WriteOptions())
    options = options.replaced(
        external_over=layout.external_over, share_weights=layout.share_weights
    )

    # Only names of today are left in `keywords`.
    return compile(
        model,
        folder,
        options,
        calibration=calibration,
        progress=progress,
        **cast(CompileKeywords, keywords),
    )


def verify_bundle(
    bundle: Path | str,
    model: Path | str | None = None,
    *,
    calls: Sequence[Inputs] = (),
    fixed: Inputs | None = None,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    engine_defaults: bool = True,
    agreement_measure: str = "",
    requirements: Requirements = Requirements(),
    allow_nothing: bool = False,
    progress: Progress = silent,
) -> Verification:
    """Verify as `irsplit.verify` does, with the old keywords.

    Args:
        bundle: The bundle's folder.
        model: The source model; needed only where it is no longer where it was.
        calls: The samples.
        fixed: Arrays of some inputs, the same in every sample.
        seed: For inputs that are made up.
        dims: Sizes of open dimensions of inputs that are made up, by "<input>.<axis>".
        engine_defaults: Whether to compare with the engine's defaults too.
        agreement_measure: How outputs are read; by default as the bundle was compiled.
        requirements: What the bundle must keep.
        allow_nothing: Whether the bundle holds when all outputs are empty.
        progress: Called before every run.

    Returns:
        What was compared, and whether the bundle holds.
    """
    return verify(
        bundle,
        model,
        samples=calls,
        inputs=fixed,
        seed=seed,
        dims=dims or {},
        engine_defaults=engine_defaults,
        agreement_measure=agreement_measure,
        requirements=requirements,
        allow_nothing=allow_nothing,
        progress=progress,
    )
