"""What every cut of a model costs, as the page and the data of `irsplit report`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from irsplit.base.atomic_files import write_file
from irsplit.base.progress import Progress, silent
from irsplit.compilation import sources
from irsplit.compilation.calibration_samples import CalibrationSamples
from irsplit.compilation.model_file import ModelFile
from irsplit.compilation.options import CompileOptions, PlanKeywords
from irsplit.compilation.samples import SampleSource, input_infos, load_samples
from irsplit.compilation.selection import conditions_of, preparation_of
from irsplit.engines.execute import Inputs
from irsplit.passes import Pipeline, Remark
from irsplit.passes.choose_cut import ChooseCut
from irsplit.passes.preparation import context_of, preparation, sizes_in
from irsplit.reporting import coded_inputs, render, report_data
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.store import is_bundle

_PREPARING = ("state", "dims", "rematerialise")
"""Options that the passes before the cuts stand for."""

_FIELDS = {
    "device": "device",
    "server": "server",
    "link": "link",
    "objective": "objective",
    "limits": "limit",
    "policy": "rule",
    "pattern": "pattern",
    "load": "load",
    "max_tensors": "max_tensors",
    "codec": "codec",
    "quantize": "bits",
}
"""Options of a plan, and the fields of `ChooseCut` that hold them."""


@dataclass(frozen=True, slots=True, repr=False)
class CostReport:
    """The report of a model or a bundle."""

    data: dict[str, Any]
    """What the page shows; see `irsplit.reporting.report_data`."""
    remarks: tuple[Remark, ...]
    """What the passes before said about the model."""

    @property
    def page(self) -> str:
        """One HTML file that needs no network."""
        return render(self.data)

    def save(self, path: Path | str) -> None:
        """Write the page. Raises BundleError where that is not possible."""
        write_file(Path(path), lambda file: file.write(self.page.encode()))

    def __repr__(self) -> str:
        """What is reported, on one line."""
        return f"<CostReport of {self.data['title']}: {self.data['legal_count']} legal cuts>"


@dataclass(frozen=True, slots=True)
class ReportSource:
    """What a report is about: a model, and the bundle that was compiled from it."""

    file: ModelFile
    bundle: Manifest | None = None

    @classmethod
    def of(cls, path: "ReportSource | Path | str") -> "ReportSource":
        """Read a model file, or a bundle and the model that it was compiled from.

        Raises:
            IrsplitError: The file is no model, or the model of the bundle is not found.
        """
        if isinstance(path, ReportSource):
            return path
        if not is_bundle(Path(path)):
            return cls(ModelFile.read(path))
        manifest = Manifest.load(path)
        return cls(ModelFile.read(sources.find(manifest)), manifest)

    def boundaries(self) -> list[list[str]]:
        """The names of the tensors that cross at each boundary of the bundle."""
        if self.bundle is None:
            return []

        names: list[list[str]] = []
        for schema in self.bundle.boundaries:
            names.append([spec.name for spec in schema.tensors])
        return names


def report(
    source: ReportSource | Path | str,
    output: Path | str | None = None,
    *,
    inputs: Inputs | None = None,
    calibration: SampleSource = (),
    progress: Progress = silent,
    **options: Unpack[PlanKeywords],
) -> CostReport:
    """Report what every cut of a model costs, as `irsplit report` does.

    Args:
        source: A model file, or a bundle, whose own options count unless others are given.
        output: Where to write the page; by default it is not written.
        inputs: Real inputs by name, to know what sending them costs.
        calibration: Inputs of several calls, on which the codec is measured: arrays by input
            name, or files and folders.
        progress: Called before the work.
        **options: Fields of `irsplit.CompileOptions` that say what to plan for.

    Returns:
        The data of the report, and its page.

    Raises:
        IrsplitError: The model, the bundle or an option is at fault.

    Example:
        >>> report("examples/digits/digits.onnx", device="pixel-2", link="lte").data["title"]
        'digits.onnx'
    """
    source = ReportSource.of(source)
    model, dialect = source.file.model, source.file.dialect
    calls = load_samples(calibration, input_infos(source.file.model.entry))

    progress(0, 1, "pricing cuts")
    asked = CompileOptions().replaced(**options)
    conditions = asked.planner()
    before = preparation(
        tuple(asked.state),
        tuple(asked.dims),
        assumed=sizes_in(model, calls),
        rematerialise=asked.rematerialise,
    )
    if source.bundle is not None:
        passes = Pipeline.parse(source.bundle.raw["pipeline"])
        conditions = _as_compiled(passes, conditions, options)
        if not any(name in options for name in _PREPARING):
            before = preparation_of(passes)

    context = context_of(dialect)
    before.run(model, context)
    context.samples = CalibrationSamples(dialect, model.entry, calls) if calls else None
    data = report_data(
        context.cuts(model, conditions.max_tensors),
        dialect,
        conditions,
        source.file.path.name,
        inputs=coded_inputs(inputs or {}),
        compiled=source.boundaries(),
        ratios=conditions.ratios(model, context),
    )
    made = CostReport(data, tuple(context.remarks))
    if output is not None:
        made.save(output)
    return made


def _as_compiled(passes: Pipeline, asked: ChooseCut, options: Mapping[str, object]) -> ChooseCut:
    """The conditions under which a bundle was compiled, but for those that are asked for."""
    changes = {field: getattr(asked, field) for name, field in _FIELDS.items() if name in options}
    return replace(conditions_of(passes), **changes)
