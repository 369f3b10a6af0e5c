"""A frame's head says what it costs: too much is refused before anything is allocated."""

import contextlib
import json
import os
import re
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import irsplit
from hostile import frames
from hostile.open_models import KINDS, bundle, memory_of
from irsplit.base.errors import BundleError, FrameError
from irsplit.engines.isolate import isolated
from irsplit.runtime.bundle.manifest import MANIFEST, Manifest, manifest_text
from irsplit.runtime.bundle.working_memory import RunLimits
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.run.engines import ONE_THREAD
from irsplit.runtime.serving.protocol.messages import (
    Code,
    InferRequest,
    ServiceError,
    WireTensor,
    frame_tensor,
)
from irsplit.runtime.serving.server.hosted import HostedBundle
from irsplit.runtime.serving.server.served import Limits, ServedBundle
from irsplit.runtime.serving.server.working_memory import RunMemory

USUAL = {
    "rows": (64, 16),
    "tokens": (1, 512, 32),
    "sound": (1, 1, 160_000),
    "picture": (1, 3, 1080, 1920),
}
"""What must pass with the limits as they are: a batch, 512 tokens, 10 s of sound, a picture."""
TOO_LARGE = {
    "rows": (1_000_000,),
    "tokens": (1, 30_000),
    "sound": (1, 100_000_000),
    "picture": (1, 12_000, 12_000),
}
"""Open dimensions of frames that are refused."""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    folder = tmp_path_factory.mktemp("open")
    return {kind: bundle(kind, folder) for kind in KINDS}


def request_of(frame: bytes) -> InferRequest:
    return InferRequest("open", "", [frame_tensor(frame)])


USUAL_LIMITS = Limits()


def refused(manifest: Manifest, frame: bytes, limits: Limits = USUAL_LIMITS) -> ServiceError:
    served = ServedBundle(manifest, "open", limits, ONE_THREAD)
    tracemalloc.start()
    try:
        with pytest.raises(ServiceError) as caught:
            served.infer(request_of(frame))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_usual_passes_with_the_limits_as_they_are(kind, bundles):
    manifest = bundles[kind]
    given = {"x": np.full(USUAL[kind], 0.5, np.float32)}
    frame = bytes(irsplit.DeviceSession(manifest.folder).start(given))
    served = ServedBundle(manifest, "open", Limits(), ONE_THREAD)
    answer = served.infer(request_of(frame))
    expected = irsplit.LocalSession(manifest.folder).run(given)["y"]
    assert answer.outputs[0].data == expected.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_beyond_the_limits_is_refused_by_its_head(kind, bundles):
    manifest = bundles[kind]
    small = [dim if index else 1 for index, dim in enumerate(USUAL[kind])]
    small = [min(dim, 32) for dim in small]
    frame = bytes(irsplit.DeviceSession(manifest.folder).start({"x": np.zeros(small, np.float32)}))
    error = refused(manifest, frames.resized(manifest.boundaries[0], frame, *TOO_LARGE[kind]))
    assert error.code is Code.TOO_LARGE
    assert re.search(r"--max-(rows|working-bytes|decoded-bytes)", error.text)


def test_a_million_rows_of_zeros_are_refused(bundles):
    """The frame is whole and right: 64 MB of zeros in some kilobytes."""
    manifest = bundles["rows"]
    frame = framing.encode(manifest.boundaries[0], [np.zeros((1_000_000, 16), np.float32)])
    assert len(frame) < 10_000
    assert refused(manifest, frame).text == (
        "'open': 1000000 rows in 'cut', the limit is 64; send fewer at a time, or raise it with "
        "--max-rows"
    )
    with pytest.raises(ServiceError, match="1000000 rows"):
        HostedBundle(manifest.folder, "open").infer(request_of(frame))
    with pytest.raises(FrameError, match="1000000 rows"):
        irsplit.ServerSession(manifest.folder, limits=RunLimits()).resume(frame)
    assert refused(manifest, frame, Limits(rows=2_000_000)).text.endswith(
        "raise it with --max-working-bytes"
    )


def test_a_session_of_the_application_takes_what_it_is_given(bundles):
    manifest = bundles["rows"]
    frame = irsplit.DeviceSession(manifest.folder).start({"x": np.ones((100, 16), np.float32)})
    assert irsplit.ServerSession(manifest.folder).resume(frame)["y"].shape == (100, 4)


def test_inputs_of_the_whole_model_have_the_same_limits(bundles):
    served = ServedBundle(bundles["rows"], "open", Limits(), ONE_THREAD)
    with pytest.raises(ServiceError, match="65 rows in 'x'"):
        served.infer(InferRequest("open", "", [WireTensor("x", "FP32", (65, 16), bytes(65 * 64))]))


def test_a_bundle_without_estimates_has_the_limits_of_rows_and_decoded_bytes(bundles, tmp_path):
    old = tmp_path / "old"
    manifest = bundles["picture"]
    for path in manifest.folder.rglob("*"):
        if path.is_file():
            target = old / path.relative_to(manifest.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    raw = json.loads((old / MANIFEST).read_text())
    del raw["working_memory"]
    (old / MANIFEST).write_text(manifest_text(raw))
    frame = bytes(irsplit.DeviceSession(old).start({"x": np.zeros((1, 3, 8, 8), np.float32)}))
    boundary = manifest.boundaries[0]
    loaded = Manifest.load(old)
    assert (
        "--max-decoded-bytes"
        in refused(loaded, frames.resized(boundary, frame, 1, 12_000, 12_000)).text
    )
    assert "--max-rows" in refused(loaded, frames.resized(boundary, frame, 65, 8, 8)).text
    raw["working_memory"] = [None, {"scales": [], "terms": [[1, []]]}]
    (old / MANIFEST).write_text(manifest_text(raw))
    with pytest.raises(BundleError, match="damaged manifest"):
        Manifest.load(old)


def test_the_estimate_grows_as_the_graph_does(bundles):
    """Scores of attention are a square of the tokens; a picture's tensors are as large as it is."""

    def needed(kind: str, shape: tuple[int, ...]) -> int:
        limits = RunLimits(1 << 32, 1 << 62, 1 << 62)
        return bundles[kind].needed(1, {"cut": shape}, limits)

    scores = 4 * 4096**2
    assert 2 * scores < needed("tokens", (1, 4096, 32)) < 3 * scores
    pixels = 4 * 1000 * 1000
    assert (3 + 8 + 8) * pixels <= needed("picture", (1, 3, 1000, 1000)) < 2 * (3 + 8 + 8) * pixels
    assert needed("rows", (64, 16)) == pytest.approx(64 * needed("rows", (1, 16)), rel=0.01)


def test_runs_take_turns_when_together_they_are_too_large():
    memory = RunMemory(100)
    first = memory.try_acquire(80)
    assert first is not None
    assert memory.try_acquire(30) is None
    first.start()
    first.abandon(7)  # nobody waits for it, and its message stays with the engine
    assert memory.taken == 87
    first.release()
    assert memory.taken == 0
    assert memory.try_acquire(1000) is not None  # what is larger than all has the room for itself


@pytest.mark.skipif(sys.platform != "linux", reason="it reads the memory of a process from /proc")
def test_after_a_large_run_the_engine_gives_the_memory_back(bundles, monkeypatch):
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tests), str(tests.parent)]))
    taken, kept = isolated(memory_of, bundles["picture"].folder, (1, 3, 1080, 1920))
    needed = bundles["picture"].needed(1, {"cut": (1, 3, 1080, 1920)}, RunLimits())
    assert needed / 2 < taken < 2 * needed
    assert kept < taken / 4


def test_mutants_of_frames_end_in_errors_of_the_project():
    escaped = []
    for index, mutant in enumerate(frames.mutants(15, 1000)):
        with contextlib.suppress(FrameError):
            try:
                frames.read(mutant, Path())
            except FrameError:
                raise
            except Exception as error:
                escaped.append((index, repr(error)))
    assert escaped == []


def test_sizes_come_from_the_head_alone(tmp_path: Path):
    boundary = frames.boundaries()[1]
    frame = framing.encode(boundary, [np.zeros((3, 8), np.float32), np.zeros((2, 5), bool)])
    assert framing.frame_shapes(boundary, frame) == [(3, 8), (2, 5)]
    assert framing.frame_shapes(boundary, frame[: 24 + 12]) == [(3, 8), (2, 5)]
    with pytest.raises(FrameError, match="ends too early"):
        framing.frame_shapes(boundary, frame[: 24 + 11])
    with pytest.raises(FrameError, match="another boundary"):
        framing.frame_shapes(frames.boundaries()[0], frame)
