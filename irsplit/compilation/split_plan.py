"""Which cut is best for a device, a server and a link, as `irsplit plan` ranks them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from irsplit.base.progress import Progress, silent
from irsplit.compilation.calibration_samples import CalibrationSamples
from irsplit.compilation.model_file import ModelFile, model_and_dialect
from irsplit.compilation.options import CompileOptions, PlanKeywords
from irsplit.compilation.samples import SampleSource, input_infos, load_samples
from irsplit.compilation.tables import html_table
from irsplit.ir import Model
from irsplit.passes import Cut, Remark
from irsplit.passes.planning.choice import CutChoice
from irsplit.passes.preparation import prepared
from irsplit.planner import human


@dataclass(frozen=True, slots=True, repr=False)
class SplitPlan:
    """All ways to place a model, the best first, and the cuts that were chosen among them.

    A notebook shows it as a table, and `pandas.DataFrame(plan.to_rows())` takes it.
    """

    choice: CutChoice
    remarks: tuple[Remark, ...]
    """What the passes before said about the model."""

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The chosen cuts, in order; none where no split is allowed."""
        return self.choice.cuts

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say about the choice, as sentences."""
        return self.choice.notes

    def check_split(self) -> None:
        """Raise PlanError, with the reason, where no split is allowed."""
        self.choice.check_split()

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat row per way: times in nanoseconds, sizes in bytes, energies in nanojoules.

        "cut" is the id of a cut, or what there is instead; "value" is in the unit of the
        objective.
        """
        rows: list[dict[str, Any]] = []
        for option in self.choice.ranked:
            row: dict[str, Any] = {
                "cut": option.label,
                "after": "" if option.cut is None else option.cut.after_name,
                "value": option.row.value,
                "allowed": option.row.allowed,
                **option.row.costs.terms,
                **option.row.costs.metrics,
            }
            rows.append(row)
        return rows

    def to_json(self) -> dict[str, Any]:
        """What `irsplit plan --json` prints."""
        return self.choice.to_json()

    def __repr__(self) -> str:
        """The chosen cuts and what they cost, on one line."""
        objective = self.choice.goal.objective
        cuts = ", ".join(cut.id for cut in self.cuts) or "none"
        cost = human(objective, self.choice.value)
        return f"<SplitPlan: cut {cuts}, {objective} {cost}; {len(self.choice.ranked)} ways>"

    def _repr_html_(self) -> str:
        return html_table(self.to_rows())


def plan(
    model: ModelFile | Model | Path | str,
    options: CompileOptions = CompileOptions(),
    *,
    calibration: SampleSource = (),
    progress: Progress = silent,
    **changes: Unpack[PlanKeywords],
) -> SplitPlan:
    """Rank the cuts of a model for a device, a server and a link, as `irsplit plan` does.

    Args:
        model: A model file, or a model in memory, in which `state` and `dims` leave their traces.
        options: What to plan for; without a device, for the default one. Options that say
            nothing of a plan count for nothing.
        calibration: Inputs of several calls, on which the codec is measured: arrays by input
            name, or files and folders. Without any, published ratios count.
        progress: Called before the work.
        **changes: Fields of `options` by name, which replace those of `options`.

    Returns:
        The ranking. It says which cuts were chosen; `check_split` raises where there are none.

    Raises:
        PlanError: A profile or limit is invalid, or the model has no legal cut.
        IrsplitError: The model or another option is at fault.

    Example:
        >>> plan("examples/digits/digits.onnx", device="pixel-2", link="lte").cuts[0].legal
        True
    """
    options = options.replaced(**changes)
    planner = options.planner()
    loaded, dialect = model_and_dialect(model)
    calls = load_samples(calibration, input_infos(loaded.entry))

    progress(0, 1, "pricing cuts")
    context = prepared(
        loaded,
        dialect,
        options.state,
        options.dims,
        calls=calls,
        rematerialise=options.rematerialise,
    )
    context.samples = CalibrationSamples(dialect, loaded.entry, calls) if calls else None
    choice = planner.choose(loaded, context)
    return SplitPlan(choice, tuple(context.remarks))
