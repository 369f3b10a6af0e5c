"""The positions at which a model can be cut, as `irsplit cuts` lists them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from irsplit.compilation.model_file import ModelFile, model_and_dialect
from irsplit.compilation.tables import html_table
from irsplit.ir import Model, TensorType, Value
from irsplit.passes import Cut, Remark
from irsplit.passes.preparation import prepared


class CutList(list[Cut]):
    """Positions of a model in the order in which it runs, legal and rejected ones.

    A notebook shows it as a table, and `pandas.DataFrame(cuts.to_rows())` takes it.
    """

    def __init__(self, cuts: Iterable[Cut], remarks: Iterable[Remark] = ()) -> None:
        super().__init__(cuts)
        self.remarks = tuple(remarks)
        """What the passes before said about the model."""

    @property
    def legal(self) -> "CutList":
        """The positions at which the model can be cut."""
        return CutList((cut for cut in self if cut.legal), self.remarks)

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat row per position; sizes in bytes, estimated where a dimension is open."""
        rows: list[dict[str, Any]] = []
        for cut in self:
            row = {
                "id": cut.id,
                "kind": cut.kind,
                "legal": cut.legal,
                "estimated_bytes": cut.estimated_bytes,
                "device_weight_bytes": cut.weight_bytes,
                "device_macs_share": cut.macs_share,
                "after": cut.after_name,
                "tensors": "+".join(value.name for value in cut.tensors),
                "reason": cut.reason,
            }
            rows.append(row)
        return rows

    def to_json(self) -> list[dict[str, Any]]:
        """What `irsplit cuts --json` prints; "bytes" is None where a dimension is open."""
        return [_described(cut) for cut in self]

    def __repr__(self) -> str:
        """How many positions and legal cuts there are, on one line."""
        legal = sum(cut.legal for cut in self)
        return f"<CutList: {legal} legal of {len(self)} positions>"

    def _repr_html_(self) -> str:
        return html_table(self.to_rows())


def find_cuts(
    model: ModelFile | Model | Path | str,
    *,
    max_tensors: int = 1,
    rematerialise: bool = True,
    state: Sequence[str] = (),
    dims: Sequence[str] = (),
) -> CutList:
    """List the positions at which a model can be cut, as `irsplit cuts` does.

    Args:
        model: A model file, or a model in memory, in which `state` and `dims` leave their traces.
        max_tensors: How many tensors may cross at a cut.
        rematerialise: Whether cheap side values are computed on both sides instead of being sent.
        state: Inputs and outputs that are state, "IN=OUT" or "auto".
        dims: Sizes of open dimensions of inputs, "NAME=N", with which estimates count.

    Returns:
        Every position, legal or rejected with its reason.

    Raises:
        IrsplitError: The model or an option is at fault.

    Example:
        >>> find_cuts("examples/digits/digits.onnx").legal[0].kind
        'strict'
    """
    loaded, dialect = model_and_dialect(model)
    context = prepared(loaded, dialect, state, dims, rematerialise=rematerialise)
    return CutList(context.cuts(loaded, max_tensors), context.remarks)


def _described(cut: Cut) -> dict[str, Any]:
    return {
        "id": cut.id,
        "after": cut.after_name,
        "legal": cut.legal,
        "kind": cut.kind,
        "reason": cut.reason,
        "shapes": _names(cut.shapes),
        "rematerialised": _names(cut.rematerialised),
        "forwards": _names(cut.forwards),
        "early_outputs": _names(cut.early_outputs),
        "tensors": [_tensor(value) for value in cut.tensors],
        "bytes": cut.size_bytes(),
        "estimated_bytes": cut.estimated_bytes,
        "device_weight_bytes": cut.weight_bytes,
        "device_macs_share": cut.macs_share,
    }


def _names(values: Iterable[Value]) -> list[str]:
    return [value.name for value in values]


def _tensor(value: Value) -> dict[str, Any]:
    if not isinstance(value.type, TensorType):
        return {"name": value.name, "dtype": None, "shape": None, "bytes": None}
    return {
        "name": value.name,
        "dtype": value.type.dtype.name,
        "shape": None if value.type.shape is None else list(value.type.shape),
        "bytes": value.type.size_bytes(),
    }
