"""What a segment that travels without its bundle says of itself: `metadata_props` of ONNX models.

Hosts that pass models on as single files drop what lies beside them. The properties name the
segment, its bundle, and what it sends and receives, with the binary descriptors. So both sides
can be put together again, and a later pass that changed the type of what crosses is found out.
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
    """The properties of a segment.

    Args:
        manifest: The bundle's.
        index: The number of the segment, from 0.

    Returns:
        Its name, place, the digest of its bundle, and the boundaries at both ends.
    """
    segment = manifest.segments[index]
    properties = {
        f"{PREFIX}segment": segment.name,
        f"{PREFIX}place": segment.placement,
        f"{PREFIX}bundle": manifest.digest,
    }
    if index < len(manifest.boundaries):
        properties[_SENDS] = _printed(manifest.boundaries[index])
    if index > 0:
        properties[_RECEIVES] = _printed(manifest.boundaries[index - 1])
    return properties


def sent_boundary(properties: Mapping[str, str]) -> FrameSchema | None:
    """The boundary that the segment sends; None for the last one."""
    return _parsed(properties[_SENDS]) if _SENDS in properties else None


def received_boundary(properties: Mapping[str, str]) -> FrameSchema | None:
    """The boundary that the segment receives; None for the first one."""
    return _parsed(properties[_RECEIVES]) if _RECEIVES in properties else None


def check_segment(path: Path | str) -> dict[str, str]:
    """Check that a segment's file still gives and takes what its properties say.

    Args:
        path: The segment's .onnx file.

    Returns:
        The properties.

    Raises:
        BundleError: A pass that ran after the split changed the boundary, or the file is no
            segment. The text names the tensor.
    """
    path = Path(path)
    model = onnx.load(path, load_external_data=False)
    properties = {
        entry.key: entry.value for entry in model.metadata_props if entry.key.startswith(PREFIX)
    }
    if f"{PREFIX}segment" not in properties:
        raise BundleError(
            f"is no segment, its metadata has no {PREFIX}segment",
            where=str(path),
            remedy="split it again",
        )

    entry = dialect_of(path).read(path).entry
    sent, received = sent_boundary(properties), received_boundary(properties)
    if sent is not None:
        _check_values(path, sent, {value.name: value for value in entry.outputs}, "gives")
    if received is not None:
        _check_values(path, received, {value.name: value for value in entry.inputs}, "takes")
    return properties


def _check_values(path: Path, schema: FrameSchema, values: Mapping[str, Value], verb: str) -> None:
    """Raise BundleError for a tensor whose value has another type now."""
    for spec in schema.tensors:
        if spec.name not in values:
            # A value that passes a segment by on its way to a later one.
            continue
        type = values[spec.name].type
        dtype = type.dtype.name if isinstance(type, TensorType) else str(type)
        if dtype != spec.dtype:
            raise BundleError(
                f"'{spec.name}' crosses {schema} as {spec.dtype}, but the segment {verb} {dtype}: "
                "a pass after the split changed it",
                where=str(path),
                remedy="run that pass before the split, or keep it off inputs and outputs",
            )


def _printed(schema: FrameSchema) -> str:
    """A boundary as the text of a property."""
    tensors = [
        {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}
        for spec in schema.tensors
    ]
    descriptor = base64.b64encode(schema.to_bytes()).decode()
    return json.dumps({"tensors": tensors, "descriptor": descriptor})


def _parsed(text: str) -> FrameSchema:
    """What `_printed` printed. Raises BundleError for a damaged property."""
    what = "the boundary in the segment's metadata"
    with reading(what, "damaged", "split it again", BundleError):
        data: dict[str, Any] = json.loads(text)
        return FrameSchema.from_bytes(base64.b64decode(data["descriptor"]))
