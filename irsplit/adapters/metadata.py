"""What a segment that travels without its bundle says of itself: `metadata_props` of an ONNX model.

Hosts that pass models on as single files drop what lies beside them. The properties name the segment, its bundle and
what it sends and receives, with the binary descriptors, so that both sides can be put together again and a later pass
that changed the type of what crosses is found out.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from irsplit.base.errors import BundleError
from irsplit.base.reading import reading
from irsplit.dialects.registry import dialect_of
from irsplit.ir import TensorType, Value
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.frame.descriptor import FrameSchema

PREFIX = "irsplit."
_SENDS, _RECEIVES = f"{PREFIX}sends", f"{PREFIX}receives"


def segment_properties(manifest: Manifest, index: int) -> dict[str, str]:
    """The properties of segment `index`: segment, place, bundle (its digest), and the boundaries at both ends."""
    segment = manifest.segments[index]
    properties = {"segment": segment.name, "place": segment.placement, "bundle": manifest.digest}
    found = {f"{PREFIX}{key}": text for key, text in properties.items()}
    if index < len(manifest.boundaries):
        found[_SENDS] = _printed(manifest.boundaries[index])
    if index:
        found[_RECEIVES] = _printed(manifest.boundaries[index - 1])
    return found


def sent_boundary(properties: Mapping[str, str]) -> FrameSchema | None:
    """The boundary that the segment sends; None for the last one."""
    return _parsed(properties[_SENDS]) if _SENDS in properties else None


def received_boundary(properties: Mapping[str, str]) -> FrameSchema | None:
    """The boundary that the segment receives; None for the first one."""
    return _parsed(properties[_RECEIVES]) if _RECEIVES in properties else None


def check_segment(path: Path) -> dict[str, str]:
    """The properties of a segment's file, which still gives and takes what they say.

    Raises BundleError, naming the tensor, when it does not: a pass that ran after the split changed it.
    """
    model = onnx.load(path, load_external_data=False)
    properties = {
        entry.key: entry.value for entry in model.metadata_props if entry.key.startswith(PREFIX)
    }
    if f"{PREFIX}segment" not in properties:
        raise BundleError(
            f"{path}: is no segment, its metadata has no {PREFIX}segment; split it again"
        )
    entry = dialect_of(path).read(path).entry
    for boundary, values, verb in (
        (sent_boundary(properties), entry.outputs, "gives"),
        (received_boundary(properties), entry.inputs, "takes"),
    ):
        if boundary is not None:
            _check_values(path, boundary, {value.name: value for value in values}, verb)
    return properties


def _check_values(
    path: Path, boundary: FrameSchema, values: Mapping[str, Value], verb: str
) -> None:
    for spec in boundary.tensors:
        if spec.name not in values:
            # A value that passes a segment by on its way to a later one.
            continue
        type = values[spec.name].type
        found = type.dtype.name if isinstance(type, TensorType) else str(type)
        if found != spec.dtype:
            raise BundleError(
                f"{path}: '{spec.name}' crosses {boundary} as {spec.dtype}, but the segment {verb} {found}: a pass "
                "after the split changed it; run that pass before the split, or keep its hands off inputs and outputs"
            )


def _printed(boundary: FrameSchema) -> str:
    tensors = [
        {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}
        for spec in boundary.tensors
    ]
    descriptor = base64.b64encode(boundary.to_bytes()).decode()
    return json.dumps({"tensors": tensors, "descriptor": descriptor})


def _parsed(text: str) -> FrameSchema:
    with reading(
        "the boundary in the segment's metadata", "damaged", "split it again", BundleError
    ):
        data: dict[str, Any] = json.loads(text)
        return FrameSchema.from_bytes(base64.b64decode(data["descriptor"]))
