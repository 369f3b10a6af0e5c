"""The names of 0.1 for one release more: `compile_model`, `verify_bundle` and `pack_bundle`."""

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
    """Keywords of `compile_model`, those that have another name now among them."""

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
    """`irsplit.compile` by its old name, with the old keywords and without a report by default."""
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
    return compile(  # the old names are gone from `keywords`
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
    """`irsplit.verify` by its old name, with the old keywords."""
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
