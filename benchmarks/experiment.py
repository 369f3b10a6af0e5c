"""The founding paper's experiment: a network between phone and cloud, with a client that chooses.

    python -m benchmarks.experiment [-o docs/experiment.md]

The clock is virtual, so a run gives the same bytes as the one before; the figure goes beside the
page. The client's choice, its estimates and its circuit breaker are those of `irsplit.runtime`;
device, server and link are models: times of the device profiles, packets of `benchmarks/link.py`.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import mean, quantiles

from benchmarks.chart import Band, Chart, Series
from benchmarks.link import PACKET, Channel
from benchmarks.networks import Network, Shape, network_time, resnet101_v2
from benchmarks.tables import markdown
from irsplit.profiles import Link, device, link
from irsplit.runtime.serving.client.breaker import Breaker
from irsplit.runtime.serving.client.switching import Answered, CutSwitcher

PHONE, CLOUD = "pixel-2", "tesla-k40"
PAPER = link("ushakov-1mbit")
WIFI = link("wifi,rtt=20ms")
ANSWER_BYTES = 100
PICTURE = Shape(224, 224, 3).elements
JPEG_BYTES = 15_834
"""Mean of scikit-learn's two sample photographs, cropped to squares, 224 x 224, quality 90."""
BOTTLENECK = Shape(28, 28, 12).elements
"""Behind conv3_x, as networks for split computing are trained with: 12 channels instead of 512."""
DEADLINE_S = 5.0
TRIAL_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a call: seconds here, bytes sent, seconds there. Nothing sent: all is here."""

    name: str
    device_s: float
    up_bytes: int
    server_s: float


def ways(network: Network) -> list[Way]:
    """The paper's cuts in 8 bits, the bottleneck after conv3_x in its place, the device alone."""
    ends = {
        "pool1": "pool1",
        "conv2_3": "conv2_x",
        "conv3_4": "conv3_x, bottleneck",
        "conv4_23": "conv4_x",
    }
    here, there = (network_time(network, device(name)) for name in (PHONE, CLOUD))
    found: list[Way] = []
    for index, layer in enumerate(network.layers, 1):
        if layer.name in ends:
            size = BOTTLENECK if "bottleneck" in ends[layer.name] else layer.output.elements
            found.append(
                Way(ends[layer.name], sum(here[:index]) / 1e9, size, sum(there[index:]) / 1e9)
            )
    return [*found, Way("device only", sum(here) / 1e9, 0, 0.0)]


def sent_whole(network: Network) -> list[Way]:
    """Nothing here: the picture is sent."""
    there = sum(network_time(network, device(CLOUD))) / 1e9
    return [
        Way("server only, raw picture", 0.0, PICTURE, there),
        Way("server only, JPEG", 0.0, JPEG_BYTES, there),
    ]


Schedule = Sequence[tuple[float, Link | None]]
"""From when on which link holds; None: nothing passes."""

SCENARIO: Schedule = ((0.0, WIFI), (60.0, PAPER), (150.0, None), (210.0, PAPER), (300.0, WIFI))
SCENARIO_S = 360.0
NAMES = {WIFI: "Wi-Fi", PAPER: "3G", None: "no link"}


@dataclass
class Air:
    """Both directions of a link that changes."""

    schedule: Schedule
    random: Random
    _up: Channel | None = None
    _down: Channel | None = None
    _since: float = -1.0

    def link_at(self, now: float) -> tuple[float, Link | None]:
        return max(
            (entry for entry in self.schedule if entry[0] <= now), key=lambda entry: entry[0]
        )

    def carried(self, up_bytes: int, down_bytes: int, server_s: float, now: float) -> float:
        """When the answer is there."""
        since, over = self.link_at(now)
        if over is None:
            return float("inf")
        if since != self._since or self._up is None or self._down is None:
            # what still travels when a link ends is lost with it
            ends = [entry[0] for entry in self.schedule if entry[0] > since]
            outage = [(ends[0], float("inf"))] if ends and self.link_at(ends[0])[1] is None else []
            clean = _resent(over)
            self._up, self._down = (Channel(clean, self.random, up, outage) for up in (True, False))
            self._since = since
        there = max(self._up.deliver(packet, now).at_s for packet in _packets(up_bytes))
        return max(
            self._down.deliver(packet, there + server_s).at_s for packet in _packets(down_bytes)
        )


def _resent(over: Link) -> Link:
    """A link on which a damaged packet counts as a lost one: TCP sends it again."""
    return (
        link(f"{over.name},loss={(over.loss_ppm + over.corruption_ppm) / 1e4}%")
        if over.loss_ppm
        else over
    )


def _packets(size: int) -> list[int]:
    return [min(PACKET, size - sent) for sent in range(0, max(size, 1), PACKET)]


@dataclass(frozen=True, slots=True)
class Call:
    began_s: float
    seconds: float
    way: str
    path: str


@dataclass
class Client:
    """Calls one after the other, each with a deadline; without an answer the device finishes."""

    air: Air
    chosen: Callable[[float], Way]
    alone_s: float
    """Seconds of the whole on the device."""
    chooser: CutSwitcher | None = None
    now: float = 0.0
    calls: list[Call] = field(default_factory=list[Call])
    _told: list[tuple[float, Callable[[], None]]] = field(
        default_factory=list[tuple[float, Callable[[], None]]]
    )
    _tried: float = -1e9

    def __post_init__(self) -> None:
        self.breaker = Breaker(3, 0.5, 30.0, clock=lambda: self.now)

    def run(self, until_s: float, stops: Sequence[Way] = ()) -> list[Call]:
        while self.now < until_s:
            self._hear()
            began, way = self.now, self.chosen(self.now)
            self.now += way.device_s
            path = "device"
            if way.up_bytes and self.breaker.closed:
                self._ping()
                path = "server" if self._sent(way, began, stops) else "device"
            elif not way.up_bytes and self.chooser is not None and self.breaker.closed:
                self._try(stops)
            if path == "device":
                self.now += self.alone_s - way.device_s
            self.calls.append(Call(began, self.now - began, way.name, path))
        return self.calls

    def _hear(self) -> None:
        """What trials have told meanwhile, and whether a probe gets through."""
        for _, tell in sorted(
            (told for told in self._told if told[0] <= self.now), key=lambda told: told[0]
        ):
            tell()
        self._told = [told for told in self._told if told[0] > self.now]
        if (
            not self.breaker.closed
            and self.breaker.probe_due()
            and self.air.link_at(self.now)[1] is not None
        ):
            self.breaker.succeeded()

    def _sent(self, way: Way, began: float, stops: Sequence[Way]) -> bool:
        """Whether the answer came in time, with what is kept for finishing here put aside."""
        rest_s = self.alone_s - way.device_s
        last = max(began + DEADLINE_S - rest_s, self.now)
        done, start = self.air.carried(way.up_bytes, ANSWER_BYTES, way.server_s, self.now), self.now
        self.now = min(done, last)
        if self.chooser is not None:
            self._tell(way, start, done, last, stops, self.now)
        if done > last:
            self.breaker.failed()
            return False
        self.breaker.succeeded()
        return True

    def _ping(self) -> None:
        """What `LinkProber` does: an empty request where calls tell no round trip."""
        chooser = self.chooser
        if chooser is None or chooser.link.rtt_age_s(self.now) < chooser.policy.ping_s:
            return
        start, done = self.now, self.air.carried(1, 1, 0.0, self.now)
        if done < start + DEADLINE_S:
            estimate = chooser.link
            self._told.append(
                (done, lambda: estimate.delivered(estimate.begin(), 0, done - start, done))
            )

    def _try(self, stops: Sequence[Way]) -> None:
        """What `LinkProber` does: while the device goes alone, a call in a few seconds is sent."""
        chooser = self.chooser
        if chooser is None or self.now - self._tried < chooser.policy.trial_s:
            return
        stop = chooser.trial(len(stops), self.now)
        if stop is None:
            return
        self._tried = start = self.now
        way, last = stops[stop - 1], start + TRIAL_LIMIT_S
        done = self.air.carried(way.up_bytes, ANSWER_BYTES, way.server_s, start)
        at = min(done, last)
        self._told.append((at, lambda: self._tell(way, start, done, last, stops, at)))

    def _tell(
        self, way: Way, start: float, done: float, last: float, stops: Sequence[Way], now: float
    ) -> None:
        chooser = self.chooser
        if chooser is None:
            return
        if done > last:
            chooser.link.failed(way.up_bytes, last - start, now)
            return
        parameters = {"service_ns": round(1e9 * way.server_s)}
        told = Answered(way.up_bytes, ANSWER_BYTES, done - start, parameters)
        chooser.answered(chooser.link.begin(), told, now)


def fixed(way: Way) -> Callable[[float], Way]:
    return lambda now: way


def adaptive(stops: Sequence[Way], planned: Link) -> CutSwitcher:
    """The client's own chooser over these stops, at the prices that the compiler would set."""
    rows = [
        {
            "cut": str(stop) if way.up_bytes else "device only",
            "terms": {
                "device_ns": round(1e9 * way.device_s),
                "device_codec_ns": 0,
                "server_ns": round(1e9 * way.server_s),
                "server_codec_ns": 0,
                "up_bytes": way.up_bytes,
                "down_bytes": ANSWER_BYTES if way.up_bytes else 0,
                "uplink_ns": 8 * way.up_bytes * 10**9 // planned.up_goodput_bit_s,
                "message_ns": planned.rtt_ns if way.up_bytes else 0,
            },
        }
        for stop, way in enumerate(stops, 1)
    ]
    cuts = [str(stop) for stop, way in enumerate(stops, 1) if way.up_bytes]
    return CutSwitcher(len(stops), range(1, len(stops) + 1), {"cuts": cuts, "ranked": rows})


def client(
    way: Way | None,
    stops: Sequence[Way],
    schedule: Schedule,
    until_s: float = SCENARIO_S,
    seed: int = 2018,
) -> list[Call]:
    """The calls of a client that always goes one way, or, with None, chooses."""
    air, alone_s = Air(schedule, Random(seed)), stops[-1].device_s
    if way is not None:
        return Client(air, fixed(way), alone_s).run(until_s)
    chooser = adaptive(stops, WIFI)
    return Client(air, lambda now: stops[chooser.choose(now) - 1], alone_s, chooser).run(
        until_s, stops
    )


def pipelined_rate(way: Way, over: Link, depth: int = 4, count: int = 200) -> float:
    """Calls a second with up to `depth` under way: device, link and server work at once."""
    air, done = Air(((0.0, over),), Random(2018)), list[float]()
    device_free = server_free = 0.0
    for index in range(count):
        begin = max(device_free, done[index - depth] if index >= depth else 0.0)
        device_free = begin + way.device_s
        if not way.up_bytes:
            done.append(device_free)
            continue
        answered = air.carried(way.up_bytes, ANSWER_BYTES, way.server_s, device_free)
        server_free = max(server_free + way.server_s, answered)
        done.append(server_free)
    return count / max(done)


def _latency(calls: Sequence[Call]) -> list[str]:
    seconds = [call.seconds for call in calls]
    tail = quantiles(seconds, n=20)[-1] if len(seconds) > 1 else seconds[0]
    return [f"{mean(seconds):.2f}", f"{tail:.2f}"]


def steady_table(network: Network) -> str:
    stops, steady = ways(network), ((0.0, PAPER),)
    rows: list[list[str]] = []
    for way in (stops[-1], *sent_whole(network), *stops[:-1]):
        calls = client(way, stops, steady)
        late = sum(call.path == "device" for call in calls) if way.up_bytes else 0
        rows.append(
            [
                way.name,
                f"{1000 * way.device_s:.0f}",
                f"{way.up_bytes / 1000:.1f}",
                *_latency(calls),
                f"{len(calls) / calls[-1].began_s:.2f}",
                f"{pipelined_rate(way, PAPER):.2f}",
                f"{100 * late / len(calls):.0f} %",
            ]
        )
    calls = client(None, stops, steady)
    rows.append(
        [
            "adaptive",
            "",
            "",
            *_latency(calls),
            f"{len(calls) / calls[-1].began_s:.2f}",
            "",
            _missed(calls),
        ]
    )
    head = [
        "way",
        "device ms",
        "sent kB",
        "mean s",
        "p95 s",
        "calls/s",
        "calls/s, 4 under way",
        "missed the deadline",
    ]
    return markdown(head, rows)


def _missed(calls: Sequence[Call]) -> str:
    missed = sum(call.path == "device" and call.way != "device only" for call in calls)
    return f"{100 * missed / len(calls):.0f} %"


def scenario_table(network: Network) -> str:
    stops = ways(network)
    rows: list[list[str]] = []
    for way in (stops[-1], *sent_whole(network), *stops[:-1], None):
        calls = client(way, stops, SCENARIO)
        name = "**adaptive**" if way is None else way.name
        rows.append(
            [
                name,
                str(len(calls)),
                *(_in_phase(calls, phase) for phase in range(len(SCENARIO))),
                _missed(calls),
            ]
        )
    head = [
        "way",
        "calls answered",
        *(f"{NAMES[over]} from {at:.0f} s" for at, over in SCENARIO),
        "missed the deadline",
    ]
    return markdown(head, rows)


def _in_phase(calls: Sequence[Call], phase: int) -> str:
    """Mean seconds of the calls that began in a phase."""
    begin, end = ([at for at, _ in SCENARIO] + [SCENARIO_S])[phase : phase + 2]
    seconds = [call.seconds for call in calls if begin <= call.began_s < end]
    return f"{mean(seconds):.2f}" if seconds else "-"


def choices(calls: Sequence[Call]) -> list[tuple[float, str]]:
    """When the way changed, and to which."""
    found: list[tuple[float, str]] = []
    for call in calls:
        if not found or found[-1][1] != call.way:
            found.append((call.began_s, call.way))
    return found


def told(changes: Sequence[tuple[float, str]]) -> str:
    return "; ".join(f"from {at:.0f} s on {name}" for at, name in changes)


def figure(network: Network) -> str:
    """Latency of every call of the scenario: device alone, a fixed cut, and the adaptive client."""
    stops = ways(network)
    shown = {
        "device only": stops[-1],
        f"cut at {stops[0].name}": stops[0],
        f"cut at {stops[2].name}": stops[2],
    }
    series = [
        Series(name, [(call.began_s, call.seconds) for call in client(way, stops, SCENARIO)])
        for name, way in shown.items()
    ]
    calls = client(None, stops, SCENARIO)
    series.append(Series("adaptive", [(call.began_s, call.seconds) for call in calls]))
    ends = [*(at for at, _ in SCENARIO[1:]), SCENARIO_S]
    bands = [Band(at, end, NAMES[over]) for (at, over), end in zip(SCENARIO, ends, strict=True)]
    return Chart("seconds since the start", "seconds a call", bands, series).svg()


_PAGE = """# The founding paper's experiment

Made by `python -m benchmarks.experiment -o docs/experiment.md`, on a virtual clock: every figure of
this page is **simulated**, and the same from run to run. The choice of the cut, its estimates and
the circuit breaker are the code that runs on devices (`runtime/serving/client/switching.py`,
`estimates.py`, `breaker.py`); the rest are models: device `{phone}` and server `{cloud}` from their
profiles, packets of `benchmarks/link.py`.

ResNet-v2-101 on 224 x 224 pictures, cut where the paper cuts it, 8 bits an element; behind conv3_x
it has a bottleneck of 12 channels, as networks for split computing are trained with (the paper's
own has none there: its 401 kB take 3.2 s on this link, [papers](papers.md)). *Raw* sends the
picture as it is, *JPEG* at quality 90, which changes it. A call has {deadline:.0f} s; what is not
answered in time, the device finishes. "Missed" counts those.

## The paper's link: 1024 kbit/s, 100 +- 20 ms each way, 1 % loss, 0.1 % damage

{steady}

A plain cut of this network sends more than the picture has and loses to both ends; the bottleneck
takes half of the raw picture's time. JPEG wins where the picture may be changed and leave the
device at all. With four calls under way device, link and server overlap, and the slowest of them
sets the rate.

## While the link changes: Wi-Fi, 3G, nothing, and back

Mean seconds of a call by phase. Fixed ways fall back to the device as well, by deadline and circuit
breaker.

{scenario}

![latency of every call](experiment.svg)

The adaptive client took: {choices}.
Its first calls after a change still go the old way; what it does not use it tries once in five
seconds. The same with real processes and sockets: [measured](experiment-measured.md); what the
kernel's TCP makes of such a link, by packets: [packets](packets.md).
"""


def page(network: Network) -> str:
    return _PAGE.format(
        phone=PHONE,
        cloud=CLOUD,
        deadline=DEADLINE_S,
        steady=steady_table(network),
        scenario=scenario_table(network),
        choices=told(choices(client(None, ways(network), SCENARIO))),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="write the page here, its figure beside it; default: print",
    )
    arguments = parser.parse_args()
    network = resnet101_v2()
    text = page(network)
    if arguments.output is None:
        print(text)
        return
    arguments.output.write_text(text, encoding="utf-8")
    arguments.output.with_suffix(".svg").write_text(figure(network), encoding="utf-8")


if __name__ == "__main__":
    main()
