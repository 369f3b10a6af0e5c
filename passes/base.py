"""What a pass is, and the context that the passes of one run share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from irsplit.dialects.base import Dialect, Layout
from irsplit.dialects.registry import dialect, installed_dialects
from irsplit.ir import Graph, Model, Value
from irsplit.passes.analysis.cuts import Cut, find_cuts
from irsplit.passes.analysis.recompute import Recompute

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from irsplit.passes.planning.ratios import Ratios

Samples = Sequence["NDArray[np.generic]"]
"""The arrays that one tensor had, one a sample."""


@dataclass(frozen=True, slots=True)
class Remark:
    """What a pass did or found, for people and reports."""

    pass_name: str
    text: str
    warning: bool = False


class SampleSource(Protocol):
    """Runs a model on calibration samples and returns what its tensors were.

    `irsplit.compilation.samples` has the source that runs an engine and one that reads recorded
    arrays; a test can give arrays of its own.
    """

    def crossing(self, model: Model) -> Mapping[str, Samples]:
        """Return the arrays of every value that crosses a boundary of a partitioned model.

        Args:
            model: A model that `partition` has cut.

        Returns:
            One array a sample for every such value, by its name.
        """
        ...

    def outputs(self, model: Model) -> Sequence[Mapping[str, Any]]:
        """Run the segments of a partitioned model, with real frames between them.

        Args:
            model: A model that `partition` has cut.

        Returns:
            For every sample, the arrays of the model's outputs by name.
        """
        ...

    def observed(self, model: Model, values: Sequence[Value], most: int) -> Mapping[str, Samples]:
        """Run the whole model and record some of its values.

        Args:
            model: A model that is not partitioned.
            values: Values of its entry graph.
            most: The number of samples to run at most, evenly chosen among all.

        Returns:
            One array a sample for every value, by its name.
        """
        ...


@dataclass(slots=True)
class ChosenCuts:
    """Where the model is to be cut, and what that was chosen from.

    choose-cut and partition fill it. `cuts` are ids, and `placements` say where the segments
    between them run. `listed` are all positions among which `partition` found its cuts, and
    `ratios` is what was measured to choose.
    """

    cuts: tuple[str, ...] = ()
    placements: tuple[str, ...] = ()
    listed: Sequence[Cut] = ()
    ratios: "Ratios | None" = None


@dataclass(slots=True)
class Context:
    """What the passes of one run share: what they may ask, and what they found.

    Args:
        dialect: What is known of the model's operators. None for IR text, of which nothing is.
        samples: Runs the model on calibration samples. None without samples.

    The other fields are filled by passes: `recompute` is what rematerialise allows, `chosen` where
    the model is to be cut, `details` go into the bundle's manifest, and `remarks` to the user.

    Example:
        >>> from irsplit.ir import parse_model
        >>> from irsplit.passes import Context, Pipeline
        >>> model = parse_model("graph @main(%x: f32[4]) -> (%y) { %y = test.op(%x) : f32[4] }")
        >>> context = Context()
        >>> Pipeline.parse("rematerialise").run(model, context)
        >>> [remark.text for remark in context.remarks]
        ["nothing is known of cheap operators of 'test'"]
    """

    dialect: Dialect | None = None
    samples: SampleSource | None = None
    recompute: Recompute | None = field(default=None, init=False)
    chosen: ChosenCuts = field(default_factory=ChosenCuts, init=False)
    details: dict[str, Any] = field(default_factory=dict[str, Any], init=False)
    remarks: list[Remark] = field(default_factory=list[Remark], init=False)
    _cuts: dict[tuple[Graph, int, Recompute | None], list[Cut]] = field(
        default_factory=dict[tuple[Graph, int, Recompute | None], list[Cut]], init=False
    )
    _crossing: Mapping[str, Samples] | None = field(default=None, init=False)

    def cuts(self, model: Model, max_tensors: int = 1) -> Sequence[Cut]:
        """Return every position of the entry graph: the one list that all passes choose from.

        The list is found once, and again after a pass has changed the model.

        Args:
            model: A model that is not partitioned.
            max_tensors: How many produced values may cross at a legal cut.

        Returns:
            Legal and rejected positions in execution order, with what `recompute` allows.
        """
        key = model.entry, max_tensors, self.recompute
        if key not in self._cuts:
            macs = None if self.dialect is None else self.dialect.macs
            self._cuts[key] = find_cuts(model.entry, max_tensors, macs, self.recompute)
        return self._cuts[key]

    def changed(self) -> None:
        """Forget what was found out about the model, because a pass changed it."""
        self._cuts.clear()

    def crossing_samples(self, model: Model) -> Mapping[str, Samples]:
        """Return the arrays of every value that crosses a boundary; nothing without samples.

        The model runs once, and again after `forget_crossing_samples`.
        """
        if self._crossing is None:
            self._crossing = {} if self.samples is None else self.samples.crossing(model)
        return self._crossing

    def forget_crossing_samples(self) -> None:
        """Forget the arrays that cross, because a pass changed what crosses."""
        self._crossing = None

    def remark(self, pass_: "Pass", text: str, *, warning: bool = False) -> None:
        """Tell the user something about this model; a warning is an error for `--werror`."""
        self.remarks.append(Remark(pass_.name, text, warning))


def channel_layout(model: Model) -> Layout:
    """Return where images of the model's dialect have their channels: "NCHW" or "NHWC".

    Models of no installed dialect, such as IR text in tests, have NHWC.
    """
    if model.dialect not in installed_dialects():
        return "NHWC"
    return dialect(model.dialect).layout


@runtime_checkable
class Pass(Protocol):
    """A transformation of a model: a frozen dataclass whose fields are its options.

    The name is in kebab-case and equals the file's. A pipeline verifies the model after each pass.
    """

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def run(self, model: Model, context: Context) -> bool:
        """Change the model in place.

        Args:
            model: A valid model, which stays valid.
            context: What the pass may ask, and where it leaves remarks.

        Returns:
            Whether the model was changed.

        Raises:
            IrsplitError: The request cannot be met; nothing is changed then.
        """
        ...
