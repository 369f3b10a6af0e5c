"""The emulated link on its virtual clock: as its profile says, the same with the same seed."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import mean, stdev

import pytest

from benchmarks.link import PERFECT, USHAKOV_3G, Channel, Delivery, read_trace
from irsplit.profiles import Link, link

MS = 10**6


def deliveries(
    over: Link, count: int, every_s: float = 1.0, seed: int = 1
) -> list[Delivery | None]:
    channel = Channel(over, Random(seed))
    return [channel.send(1000, index * every_s) for index in range(count)]


def test_same_seed_same_fate():
    assert deliveries(USHAKOV_3G, 500) == deliveries(USHAKOV_3G, 500)
    assert deliveries(USHAKOV_3G, 500) != deliveries(USHAKOV_3G, 500, seed=2)


def test_losses_damage_and_delay_are_as_common_as_said():
    over = replace(
        PERFECT, rtt_ns=200 * MS, jitter_ns=20 * MS, loss_ppm=100_000, corruption_ppm=50_000
    )
    fates = deliveries(over, 20_000)
    arrived = [(fate, index) for index, fate in enumerate(fates) if fate is not None]
    assert 1 - len(arrived) / len(fates) == pytest.approx(0.1, abs=0.01)
    assert mean(fate.damaged is not None for fate, _ in arrived) == pytest.approx(0.05, abs=0.01)
    delays = [fate.at_s - index for fate, index in arrived]
    assert mean(delays) == pytest.approx(0.1, abs=0.001)
    assert stdev(delays) == pytest.approx(0.02, abs=0.001)


def test_rate_holds_after_the_burst():
    over = Link("slow up", up_bit_s=8_000_000, down_bit_s=80_000_000, burst_bytes=3000)
    for up, rate in ((True, 1e6), (False, 1e7)):
        channel = Channel(over, Random(0), up)
        channel.send(1000, 1.0)  # the bucket fills with time
        arrivals = [channel.send(1000, 2.0) for _ in range(1003)]
        times = [arrival.at_s for arrival in arrivals if arrival is not None]
        assert times[:3] == [2.0, 2.0, 2.0]
        assert times[-1] == pytest.approx(2.0 + 1000 * 1000 / rate)


def test_outage_loses_all_and_tcp_comes_after_it():
    channel = Channel(PERFECT, Random(0), outages=[(5.0, 25.0)])
    passed = channel.send(1000, 4.9)
    assert passed is not None
    assert passed.at_s == pytest.approx(4.9)
    assert channel.send(1000, 10.0) is None
    assert channel.deliver(1000, 10.0).at_s >= 25.0


def test_reordered_packets_overtake_each_other():
    fates = deliveries(replace(PERFECT, rtt_ns=200 * MS, reordering_ppm=200_000), 200, every_s=0.01)
    times = [fate.at_s for fate in fates if fate is not None]
    assert times != sorted(times)


def test_trace_files(tmp_path: Path):
    lines = [{"at_s": 0, "link": "wifi"}, {"at_s": 9.5, "link": "3g,rtt=70ms,loss=30%"}]
    (tmp_path / "trace").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert read_trace(tmp_path / "trace") == [
        (0.0, link("wifi")),
        (9.5, link("3g,rtt=70ms,loss=30%")),
    ]
