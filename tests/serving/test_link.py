"""The emulated link on its virtual clock: it does what its conditions say, and the same again with the same seed."""

import json
from pathlib import Path
from random import Random
from statistics import mean, stdev

import pytest

from benchmarks.link import USHAKOV_3G, Conditions, Delivery, Link


def deliveries(conditions: Conditions, count: int, every_s: float = 1.0, seed: int = 1) -> list[Delivery | None]:
    link = Link(conditions, Random(seed))
    return [link.send(1000, index * every_s) for index in range(count)]


def test_same_seed_same_fate():
    assert deliveries(USHAKOV_3G, 500) == deliveries(USHAKOV_3G, 500)
    assert deliveries(USHAKOV_3G, 500) != deliveries(USHAKOV_3G, 500, seed=2)


def test_losses_damage_and_delay_are_as_common_as_said():
    conditions = Conditions(delay_s=0.1, jitter_s=0.02, loss=0.1, corruption=0.05)
    fates = deliveries(conditions, 20_000)
    arrived = [(fate, index) for index, fate in enumerate(fates) if fate is not None]
    assert 1 - len(arrived) / len(fates) == pytest.approx(0.1, abs=0.01)
    assert mean(fate.damaged is not None for fate, _ in arrived) == pytest.approx(0.05, abs=0.01)
    delays = [fate.at_s - index for fate, index in arrived]
    assert mean(delays) == pytest.approx(0.1, abs=0.001)
    assert stdev(delays) == pytest.approx(0.02, abs=0.001)


def test_rate_holds_after_the_burst():
    link = Link(Conditions(rate_bit_s=8_000_000, burst_bytes=3000), Random(0))
    link.send(1000, 1.0)  # the bucket fills with time
    arrivals = [link.send(1000, 2.0) for _ in range(1003)]
    times = [arrival.at_s for arrival in arrivals if arrival is not None]
    assert times[:3] == [2.0, 2.0, 2.0]
    assert times[-1] == pytest.approx(2.0 + 1000 * 1000 / 1e6)


def test_outage_loses_all_and_tcp_comes_after_it():
    link = Link(Conditions(outages=((5.0, 25.0),)), Random(0))
    assert link.send(1000, 10.0) is None
    assert link.send(1000, 4.9) == Delivery(4.9)
    assert link.deliver(1000, 10.0).at_s >= 25.0


def test_reordered_packets_overtake_each_other():
    fates = deliveries(Conditions(delay_s=0.1, reordering=0.2), 200, every_s=0.01)
    times = [fate.at_s for fate in fates if fate is not None]
    assert times != sorted(times)


def test_trace_files(tmp_path: Path):
    lines = [{"at_s": 0, "rate_bit_s": 1e6}, {"at_s": 9.5, "loss": 0.3}]
    (tmp_path / "trace").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert Conditions.from_trace(tmp_path / "trace") == [
        (0.0, Conditions(rate_bit_s=1e6)),
        (9.5, Conditions(loss=0.3)),
    ]
