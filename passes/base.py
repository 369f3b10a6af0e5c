"""What a pass is, and what it may know beside the model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from irsplit.dialects.base import Layout
from irsplit.dialects.registry import dialect, installed_dialects
from irsplit.ir import Graph, HeadRole, Model, Node, Value
from irsplit.passes.analysis.cuts import Cut, find_cuts
from irsplit.passes.analysis.recompute import Recompute

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from irsplit.passes.planning.ratios import Ratios

Samples = Sequence["NDArray[np.generic]"]


@dataclass(frozen=True, slots=True)
class Remark:
    """What a pass did or found, for people and reports."""

    pass_name: str
    text: str
    warning: bool = False


@dataclass(slots=True)
class Context:
    """What the passes of one run share.

    `macs`, `summed`, `is_cheap`, `is_shape` and `head_role` are the dialect's knowledge of its operators, `affine`
    makes those that quantize; `shapes` runs the model once in these sizes of its open dimensions; `calibrate` runs
    the segments of a partitioned model on calibration inputs and gives what crosses; `evaluate` runs them too,
    through real frames, and gives the outputs of every call; `observe` runs the whole model on so many calibration
    inputs at most and gives the arrays of some of its values, by name; `recompute` is what the rematerialise pass
    allows; `listed` are the positions among which `partition` found its cuts, `ratios` what was measured to choose
    them; `details` go into the bundle's manifest.
    """

    macs: Callable[[Node], int] | None = None
    shapes: Callable[[Model, Mapping[str, int]], Mapping[Value, tuple[int, ...]]] | None = None
    is_cheap: Callable[[Node], bool] | None = None
    is_shape: Callable[[Node], bool] | None = None
    affine: Callable[[Model, Value, Value], tuple[list[Value], list[Node]]] | None = None
    calibrate: Callable[[Model], Mapping[str, Samples]] | None = None
    evaluate: Callable[[Model], Sequence[Mapping[str, Any]]] | None = None
    observe: Callable[[Model, Sequence[Value], int], Mapping[str, Samples]] | None = None
    summed: Callable[[Node, Callable[[Node], int]], int] | None = None
    head_role: Callable[[Node], HeadRole] | None = None
    recompute: Recompute | None = None
    chosen_cuts: tuple[str, ...] = ()
    chosen_places: tuple[str, ...] = ()
    listed: Sequence[Cut] = ()
    ratios: "Ratios | None" = None
    details: dict[str, Any] = field(default_factory=dict[str, Any])
    remarks: list[Remark] = field(default_factory=list[Remark])
    _cuts: dict[tuple[Graph, int, Recompute | None], list[Cut]] = field(
        default_factory=dict[tuple[Graph, int, Recompute | None], list[Cut]]
    )
    _samples: Mapping[str, Samples] | None = None

    def cuts(self, model: Model, max_tensors: int = 1) -> Sequence[Cut]:
        """Every position of the entry graph, with what `recompute` allows: the one list that all passes choose from.

        It is found once, until a pass changes the model.
        """
        key = model.entry, max_tensors, self.recompute
        if key not in self._cuts:
            self._cuts[key] = find_cuts(model.entry, max_tensors, self.macs, self.recompute)
        return self._cuts[key]

    def changed(self) -> None:
        """A pass changed the model: what was found out about it is no longer so."""
        self._cuts.clear()

    def samples(self, model: Model) -> Mapping[str, Samples]:
        """For every value that crosses a boundary, its arrays over the calibration inputs; empty without inputs."""
        if self._samples is None:
            self._samples = self.calibrate(model) if self.calibrate else {}
        return self._samples

    def forget_samples(self) -> None:
        """After a pass that changed what crosses."""
        self._samples = None

    def remark(self, pass_: "Pass", text: str, *, warning: bool = False) -> None:
        """Tell the user something about this model; a warning is an error for `compile --werror`."""
        self.remarks.append(Remark(pass_.name, text, warning))


def channel_layout(model: Model) -> Layout:
    """The layout of images in the model's dialect; NHWC for models of no installed dialect."""
    if model.dialect not in installed_dialects():
        return "NHWC"
    return dialect(model.dialect).layout


@runtime_checkable
class Pass(Protocol):
    """A transformation: a frozen dataclass whose fields are its options.

    `run` changes the model in place and tells whether it did. It takes a valid model and leaves a valid one; a
    request that cannot be met raises an IrsplitError, before anything is changed.
    """

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def run(self, model: Model, context: Context) -> bool: ...
