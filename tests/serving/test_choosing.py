"""The choice among cuts on a virtual clock: what is learnt of the link, and what is chosen."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irsplit
import irsplit.runtime
from irsplit.base.errors import BundleError, CutError
from irsplit.passes.choose_cut import ChooseCut
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import EngineOptions
from irsplit.runtime.run.segments import SegmentRunner
from irsplit.runtime.serving.client.link_estimate import Average, Least, LinkEstimate, expected
from irsplit.runtime.serving.client.retry import RetryPolicy
from irsplit.runtime.serving.client.switching import (
    DEFAULT_POLICY,
    Answered,
    CutSwitcher,
    SwitchingPolicy,
    stops,
)
from irsplit.runtime.serving.client.transport import TransportError
from irsplit.runtime.serving.protocol.messages import Code, InferRequest, InferResponse
from irsplit.runtime.serving.server.served import Limits, ServedBundle
from irsplit.runtime.serving.server.server import ServerOptions, serving

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits"
CUTS = ["down/relu", "bottleneck/relu", "expand/relu"]
NAMES = [*CUTS, "device only"]


@pytest.fixture(scope="module", params=["onnx", "tflite"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The example with three cuts and all of it on the device, by format."""
    folder = tmp_path_factory.mktemp("several")
    for kind in ("onnx", "tflite"):
        irsplit.compile_model(DIGITS / f"digits.{kind}", folder / kind, CUTS, autonomous=True)
    return {kind: folder / kind for kind in ("onnx", "tflite")}


def test_average_forgets_with_time_and_never_all_at_once():
    average = Average(span_s=2.0)
    for _ in range(100):
        average.add(10.0, 0.0)
    average.add(20.0, 0.2)
    assert average.value == pytest.approx(10 + 10 * (1 - np.exp(-0.1)))
    average.add(1000.0, 500.0)
    assert average.value == pytest.approx(750 + (10 + 10 * (1 - np.exp(-0.1))) / 4)


def test_least_of_a_window():
    least = Least(window_s=10.0)
    assert least.value is None
    for at, sample in ((0, 5.0), (1, 3.0), (2, 4.0), (3, 9.0)):
        least.add(sample, at)
    assert least.value == 3.0
    least.add(8.0, 11.5)
    assert least.value == 4.0
    least.add(8.0, 30.0)
    assert least.value == 8.0


def test_parts_without_a_measurement_take_their_price_corrected():
    parts = [Average(1.0), Average(2.0), Average(4.0)]
    assert expected(parts) == [1.0, 2.0, 4.0]
    parts[0].add(3.0, 0.0)
    parts[1].add(6.0, 0.0)
    assert expected(parts) == [3.0, 6.0, 12.0]
    assert expected([*parts, Average()]) is None


@pytest.mark.parametrize("flights", [1, 4])
def test_rate_is_that_of_the_link_however_many_share_it(flights: int):
    """1 MB/s and 100 ms of round trip; the requests of a window queue behind each other."""
    estimate = LinkEstimate()
    estimate.delivered(estimate.begin(), 100, 0.1, 0.0)
    free, under_way = 1.0, []
    for index in range(200):
        begun = free if flights == 1 else max(free - 0.1 * (flights - 1), 1.0)
        under_way.append((estimate.begin(), begun))
        free += 0.1
        if len(under_way) == flights or index == 199:
            sending, begun = under_way.pop(0)
            done = begun + 0.1 * (flights if index >= flights else index + 1) + 0.1
            estimate.delivered(sending, 100_000, done - begun, done)
    assert estimate.rate_bit_s == pytest.approx(8e6, rel=0.25)
    assert estimate.rtt_s == pytest.approx(0.1)


def test_a_request_without_an_answer_bounds_the_rate():
    estimate = LinkEstimate()
    estimate.failed(100_000, 2.0, 1.0)
    assert estimate.rate_bit_s == pytest.approx(400_000)
    estimate.failed(100_000, 1e-3, 2.0)  # refused at once: says nothing
    assert estimate.rate_bit_s == pytest.approx(400_000)


@dataclass
class World:
    """A clock that moves when something is done, a link, and a server that really computes."""

    bundle: ServedBundle
    rate_bit_s: float = 8e6
    rtt_s: float = 0.02
    up: bool = True
    server_s: float = 0.001
    """Of every segment."""
    wait_s: float = 0.0
    now: float = 100.0
    ran: int = 0
    """Segments on the device."""
    sent: list[int] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        size = len(request.inputs[0].data)
        self.sent.append(size)
        seconds = self.rtt_s + 8 * size / self.rate_bit_s
        if not self.up or seconds > timeout_s:
            self.now += timeout_s
            raise TransportError(Code.DEADLINE, "no answer in time")
        response = self.bundle.infer(request)
        ran = [word.split(":")[0] for word in str(response.parameters["segment_ns"]).split(",")]
        service = self.server_s * len(ran) + self.wait_s
        self.now += seconds + service
        told: dict[str, Any] = {
            **response.parameters,
            "segment_ns": ",".join(f"{index}:{round(1e9 * self.server_s)}" for index in ran),
            "service_ns": round(1e9 * service),
        }
        return InferResponse(response.model, response.version, response.outputs, request.id, told)

    def ping(self, timeout_s: float) -> bool:
        self.now += self.rtt_s if self.up else timeout_s
        return self.up

    def ready(self, timeout_s: float) -> bool:
        return self.up

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Slow:
    """An engine of the device: 10 ms a run."""

    engine: Any
    world: World

    def run(self, inputs: Any) -> Any:
        self.world.now += 0.01
        self.world.ran += 1
        return self.engine.run(inputs)


PATIENCE = RetryPolicy(attempts=1, breaker_failures=100)
Opened = tuple[irsplit.runtime.RemoteSession, World]


def opened(folder: Path, **conditions: Any) -> Opened:
    """A session whose device takes 10 ms a segment, in a world."""
    manifest = Manifest.load(folder)
    world = World(ServedBundle(manifest, manifest.name, Limits(), EngineOptions()))
    for name, value in conditions.items():
        setattr(world, name, value)
    session = irsplit.runtime.RemoteSession(
        folder,
        world,
        retry_policy=PATIENCE,
        checked=False,
        clock=world.clock,
        timeout_s=30.0,
        policy=SwitchingPolicy(),
    )
    session._prober._in_background = lambda work: work()
    session._device._engines = {
        i: Slow(engine, world) for i, engine in session._device._engines.items()
    }
    return session, world


def settle(session: Any, call: Any, times: int = 60) -> list[str]:
    """The cuts of so many calls."""
    return [session.infer(call).cut for _ in range(times)]


def test_first_call_of_a_bundle_without_prices_measures_every_part(bundles, calls, kind):
    session, world = opened(bundles[kind])
    assert session._switcher.costs() == ()
    with session:
        answer = session.infer(calls[kind][0])
    assert (answer.path, answer.cut, answer.attempts) == ("server", CUTS[0], 1)
    costs = {cost.cut: cost for cost in session._switcher.costs()}
    assert list(costs) == ["1", "2", "3", "4"]
    assert costs["1"].server_ns == pytest.approx(3 * world.server_s * 1e9, rel=1e-6)
    assert costs["4"].device_ns == pytest.approx(4 * 0.01e9)
    assert costs["1"].up_bytes > costs["2"].up_bytes


def test_every_cut_gives_the_same_answer(bundles, calls, kind):
    expected_outputs = [
        irsplit.LocalSession(bundles[kind]).run(call)["logits"] for call in calls[kind][:4]
    ]
    manifest = Manifest.load(bundles[kind])
    world = World(ServedBundle(manifest, manifest.name, Limits(), EngineOptions()))
    for name in NAMES:
        session = irsplit.runtime.RemoteSession(bundles[kind], world, checked=False, cut=name)
        with session:
            for call, output in zip(calls[kind], expected_outputs, strict=False):
                answer = session.infer(call)
                assert answer.cut == name
                assert answer.path == ("device" if name == "device only" else "server")
                np.testing.assert_array_equal(answer.outputs["logits"], output)
            assert session.metrics().calls == {(name, answer.path): 4}


def test_the_cut_follows_the_link(bundles, calls):
    """A good link: little is done here. A bad one: the smallest frame. None: alone. And back."""
    call, output = (
        calls["onnx"][0],
        irsplit.LocalSession(bundles["onnx"]).run(calls["onnx"][0])["logits"],
    )
    session, world = opened(bundles["onnx"], rate_bit_s=1e9, rtt_s=0.001)
    with session:
        assert set(settle(session, call)[-20:]) == {"down/relu"}
        world.rate_bit_s = 600_000
        world.rtt_s = 0.005
        assert set(settle(session, call, 200)[-20:]) == {"bottleneck/relu"}
        world.rate_bit_s = 8_000
        assert set(settle(session, call, 200)[-20:]) == {"device only"}
        world.rate_bit_s = 1e9
        assert set(settle(session, call, 700)[-20:]) == {"down/relu"}
        np.testing.assert_array_equal(session.infer(call).outputs["logits"], output)
        metrics = session.metrics()
    assert metrics.changes <= 6
    assert sum(metrics.calls.values()) == 1161
    assert metrics.rate_bit_s is not None
    assert metrics.rtt_s == pytest.approx(0.005, rel=0.1)


def test_a_busy_server_is_left(bundles, calls):
    session, world = opened(bundles["onnx"], rate_bit_s=1e9, rtt_s=0.001)
    with session:
        settle(session, calls["onnx"][0])
        world.wait_s = 0.5
        assert set(settle(session, calls["onnx"][0])[-20:]) == {"device only"}
        assert session.metrics().server_wait_s > 0.1
        world.wait_s = 0.0
        assert set(settle(session, calls["onnx"][0], 500)[-20:]) == {"down/relu"}


def test_without_a_link_from_the_start_every_segment_runs_once_a_call(bundles, calls):
    session, world = opened(bundles["onnx"], up=False)
    with session:
        first = session.infer(calls["onnx"][0], timeout_s=0.5)
        world.ran = 0
        second = session.infer(calls["onnx"][0], timeout_s=0.5)
    assert (first.path, second.path, world.ran) == ("device", "device", 4)


def test_going_alone_costs_a_trial_now_and_then(bundles, calls):
    session, world = opened(bundles["onnx"], rate_bit_s=8_000, rtt_s=0.2)
    with session:
        settle(session, calls["onnx"][0], 100)
        world.sent.clear()
        began = world.now
        assert set(settle(session, calls["onnx"][0], 400)) == {"device only"}
        assert len(world.sent) <= (world.now - began) / 5.0 + 1
        assert all(size < 1000 for size in world.sent), "the trial is the smallest frame"


def priced(device_ms: float, server_ms: float, sizes: tuple[int, ...], rate: int) -> dict[str, Any]:
    """A manifest's `choice` for cuts between equal segments."""
    count = len(sizes) + 1
    rows = [
        {
            "cut": str(stop) if stop < count else "device only",
            "terms": {
                "device_ns": round(1e6 * device_ms * stop),
                "device_codec_ns": 0,
                "server_ns": round(1e6 * server_ms * (count - stop)),
                "server_codec_ns": 0,
                "up_bytes": sizes[stop - 1] if stop < count else 0,
                "down_bytes": 40 if stop < count else 0,
                "uplink_ns": 8 * 10**9 * sizes[stop - 1] // rate if stop < count else 0,
                "message_ns": 10**7 if stop < count else 0,
            },
        }
        for stop in range(1, count + 1)
    ]
    return {"cuts": [str(stop) for stop in range(1, count)], "load": 100, "ranked": rows}


def planned(
    device_ms: float, sizes: tuple[int, ...], rate: int, policy: SwitchingPolicy = DEFAULT_POLICY
) -> CutSwitcher:
    """A chooser among all stops of equal segments, each 1 ms on the server."""
    count = len(sizes) + 1
    return CutSwitcher(count, range(1, count + 1), priced(device_ms, 1, sizes, rate), policy)


def call(
    chooser: CutSwitcher, now: float, rate: float, sizes: tuple[int, ...]
) -> tuple[int, float]:
    """One call over an exact link, 100 ms a segment; the stop, and the time at the end."""
    stop = chooser.choose(now)
    now += 0.1 * stop
    if stop > len(sizes):
        return stop, now
    sending, seconds = chooser.link.begin(), 8 * (sizes[stop - 1] + 40) / rate
    chooser.answered(sending, Answered(sizes[stop - 1], 40, seconds, {}), now + seconds)
    return stop, now + seconds


SIZES = (400_000, 20_000, 100_000)


def test_the_first_choice_is_that_of_the_compiler():
    for rate in (10**9, 10**6, 10**3):
        chooser = planned(20, SIZES, rate)
        assert chooser.current == {10**9: 1, 10**6: 4, 10**3: 4}[rate]
    assert planned(100, SIZES, 2 * 10**6).current == 2


def test_no_flapping_between_cuts_that_are_nearly_the_same():
    """The link wobbles by a tenth around the point where two cuts are equal."""
    chooser = planned(100, SIZES, 10**9)
    equal, now = 8 * (SIZES[0] - SIZES[1]) / 0.099, 0.0
    for index in range(2000):
        _, now = call(chooser, now, equal * (1.1 if index // 7 % 2 else 0.9), SIZES)
    assert chooser.changes <= 1


def test_a_change_waits_its_time_even_when_the_link_jumps():
    policy = SwitchingPolicy(dwell_s=5.0)
    chooser = planned(100, SIZES, 10**9, policy)
    now, changed = 0.0, list[float]()
    for index in range(3000):
        before = chooser.changes
        _, now = call(chooser, now, 1e9 if index // 150 % 2 else 1e6, SIZES)
        if chooser.changes > before:
            changed.append(now)
    assert len(changed) > 2
    assert min(np.diff(changed)) >= 4.9


def test_choosing_takes_microseconds():
    """Not a timing: the work is a sum over cuts, and asks neither link nor planner."""
    chooser = planned(20, SIZES, 10**6)
    asked: list[str] = []
    chooser.costs = lambda inner=chooser.costs: (asked.append("costs"), inner())[1]
    chooser.choose(0.0)
    assert asked == ["costs"]


def test_a_client_says_which_cuts_there_are(bundles):
    with pytest.raises(BundleError, match="'down/relu', 'bottleneck/relu'"):
        irsplit.runtime.connect("http://127.0.0.1:9", bundles["onnx"], cut="nowhere")


def test_adaptive_without_autonomy(tmp_path, calls):
    """The device lacks the last segment, the server the first; no weight is there twice."""
    irsplit.compile_model(DIGITS / "digits.onnx", tmp_path / "bundle", CUTS, adaptive=True)
    manifest = Manifest.load(tmp_path / "bundle")
    device = SegmentRunner(manifest, "device")
    assert stops(manifest, device) == (1, 2, 3)
    whole = (DIGITS / "digits.onnx").stat().st_size
    for place in ("device", "server"):
        parts = sum(path.stat().st_size for path in (tmp_path / "bundle" / place).glob("*.onnx"))
        assert parts < 1.05 * whole
    session, world = opened(tmp_path / "bundle", rate_bit_s=600_000)
    with session:
        assert set(settle(session, calls["onnx"][0])[-20:]) == {"bottleneck/relu"}
        world.rate_bit_s = 1e9
        assert set(settle(session, calls["onnx"][0], 500)[-20:]) == {"down/relu"}
    with pytest.raises(CutError, match="nothing to choose from"):
        irsplit.compile_model(DIGITS / "digits.onnx", tmp_path / "one", CUTS[:1], adaptive=True)


def test_the_planner_picks_cuts_that_serve_different_links(tmp_path):
    choose = ChooseCut(device="pixel-2", link="wifi", pattern="several")
    compiled = irsplit.compile_model(
        DIGITS / "digits.onnx", tmp_path / "bundle", choose=choose, autonomous=True
    )
    manifest = compiled.manifest
    assert len(manifest.boundaries) >= 2
    assert [segment.placement for segment in manifest.segments] == [
        "device",
        *["server"] * len(manifest.boundaries),
    ]
    sizes = [8 * np.prod(boundary.tensors[0].shape[1:]) for boundary in manifest.boundaries]
    assert sorted(sizes, reverse=True) == sizes, "a later cut that sends more is never better"
    chooser = CutSwitcher(
        len(manifest.segments),
        stops(manifest, SegmentRunner(manifest, "device")),
        manifest.raw["choice"],
    )
    assert chooser.costs()


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_over_real_connections_every_cut_gives_the_same_answer(scheme, bundles, calls, kind):
    local = irsplit.LocalSession(bundles[kind])
    with serving([f"digits={bundles[kind]}"], ServerOptions(port=0, http_port=0)) as server:
        port = server.port if scheme == "grpc" else server.http_port
        for name in ("", *NAMES):
            url = f"{scheme}://127.0.0.1:{port}"
            with irsplit.runtime.connect(url, bundles[kind], name="digits", cut=name) as session:
                for call in calls[kind][:8]:
                    answer = session.infer(call)
                    assert answer.cut in ([name] if name else NAMES)
                    np.testing.assert_array_equal(
                        answer.outputs["logits"], local.run(call)["logits"]
                    )
                    if answer.path == "server":
                        assert name in ("", server_cut(bundles[kind], answer.boundary))
                link = session.metrics()
            assert (link.rtt_s is not None or link.rate_bit_s is not None) == (name == "")


def server_cut(folder: Path, boundary: int) -> str:
    return Manifest.load(folder).boundaries[boundary].name
