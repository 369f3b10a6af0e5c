"""Profiles of devices and links, measured profiles and bench runs, as a stranger's."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from hostile.asking import DIGITS, ROOT, ask
from hostile.damage import damaged, damaged_json
from hostile.target import Target
from irsplit.dialects.registry import dialect_of
from irsplit.measure.bench import Bench, CutCost, Timing, Unsplit, load_bench
from irsplit.measure.bench import to_json as bench_json
from irsplit.measure.comparison import compare
from irsplit.passes.preparation import prepared
from irsplit.planner.cost import from_json
from irsplit.profiles.load import link
from irsplit.profiles.measured import Load, MeasuredTransfer, ModelProfile, load_profile
from irsplit.profiles.measured import to_json as profile_json

ODD_TOML = (
    "nan",
    "inf",
    "-inf",
    "-0.0",
    "1e999999999",
    "-1e-999999999",
    "9" * 5000,
    "9" * 400,
    "9223372036854775807",
    "0",
    "-1",
    "true",
    "2026-01-01",
    "12:00:00",
    "[]",
    "{}",
    "[" * 3000 + "]" * 3000,
    '""',
    '"\\u001b[2J"',
    '"\\u0000"',
    '"\\u202e"',
    '"' + "x" * 3000 + '"',
    "'''\n\n'''",
)
"""Values of TOML that no field expects."""

_VALUE = re.compile(r"""(?<==)\s*("[^"]*"|[^\s,"{}\[\]]+)""")
_KEY = re.compile(r"^[\w.-]+(?=\s*=)", re.MULTILINE)


def damaged_toml(text: str, random: Random) -> bytes:
    """TOML in which bytes, values or keys have changed; most often it still parses."""
    if random.random() < 0.3:
        return damaged(text.encode(), random)
    pattern = _VALUE if random.random() < 0.8 else _KEY
    for _ in range(random.randint(1, 2)):
        places = list(pattern.finditer(text))
        if not places:
            break
        place = random.choice(places)
        odd = (
            random.choice(ODD_TOML)
            if pattern is _VALUE
            else random.choice(('""', '"\\u001b"', "kind", "x" * 300))
        )
        text = f"{text[: place.start()]} {odd}{text[place.end() :]}"
    return text.encode()


def devices(seed: int, count: int) -> Iterator[bytes]:
    text = (ROOT / "irsplit" / "profiles" / "pixel-2.toml").read_text()
    random = Random(seed)
    for _ in range(count):
        yield damaged_toml(text, random)


def links(seed: int, count: int) -> Iterator[bytes]:
    text = (ROOT / "irsplit" / "profiles" / "lte.toml").read_text()
    random = Random(seed)
    for _ in range(count):
        yield damaged_toml(text, random)


def plan_for_device(mutant: bytes, folder: Path) -> None:
    path = folder / "device.toml"
    path.write_bytes(mutant)
    ask("plan", DIGITS, "--device", path)


def plan_over_link(mutant: bytes, folder: Path) -> None:
    path = folder / "link.toml"
    path.write_bytes(mutant)
    ask("plan", DIGITS, "--link", path)


@cache
def _profile() -> Any:
    """A profile of the digits as `irsplit profile` writes it, with figures made up."""
    dialect = dialect_of(DIGITS)
    model = dialect.read(DIGITS)
    legal = [cut for cut in prepared(model, dialect).cuts(model) if cut.legal]
    load, coding = (
        Load(1000, 900, 1 << 20, 4096, 5),
        (MeasuredTransfer("raw", 256, 10, 10), MeasuredTransfer("zstandard", 200, 50, 20)),
    )
    profile = ModelProfile(
        model="digits.onnx",
        digest=hashlib.sha256(DIGITS.read_bytes()).hexdigest(),
        machine="here",
        engine="onnxruntime",
        threads=1,
        runs=3,
        tensors={cut.tensors[0].name: coding for cut in legal},
        cuts=tuple(cut.id for cut in legal),
        whole=load,
        stretches=(load,) * (len(legal) + 1),
        prefixes=(load,) * len(legal),
        suffixes=(load,) * len(legal),
    )
    return json.loads(profile_json(profile))


def measured(seed: int, count: int) -> Iterator[bytes]:
    return _json_mutants(_profile(), seed, count)


def plan_with_measured(mutant: bytes, folder: Path) -> None:
    path = folder / "digits.json"
    path.write_bytes(mutant)
    ask("plan", DIGITS, "--device", f"{path},slowdown=4")
    load_profile(f"{path},clock=cpu")


def _bench() -> Any:
    timing = Timing(1000, 10, 5)
    times = dict.fromkeys(("whole", "device", "encode", "decode", "server", "total"), timing)
    cut = CutCost("4", "strict", "x", 100, 50, times, 0.1, 0.01, 1 << 20, 1 << 20, 2000)
    conditions = {"threads": 1, "link": "wifi"}
    unsplit = (Unsplit("device only", 0, 1000),)
    return Bench(
        "0.1.0",
        "m.onnx",
        "00" * 32,
        "here",
        2,
        "engine",
        conditions,
        timing,
        1 << 20,
        unsplit,
        (cut,),
    )


def benches(seed: int, count: int) -> Iterator[bytes]:
    return _json_mutants(json.loads(bench_json(_bench())), seed, count)


def compare_benches(mutant: bytes, folder: Path) -> None:
    path = folder / "old.json"
    path.write_bytes(mutant)
    found = compare(load_bench(path), _bench())
    assert found.worse(5.0) is not None


def tables(seed: int, count: int) -> Iterator[bytes]:
    group = {
        "name": "a",
        "device_ns": 5,
        "server_ns": 1,
        "device_nj": 0,
        "weight_bytes": 9,
        "working_bytes": 4,
        "pin": None,
    }
    way = {"codec": "raw", "size_bytes": 10, "encode_ns": 1, "decode_ns": 1}
    tensor = {
        "name": "t",
        "producer": 0,
        "consumers": [1],
        "up": [way],
        "down": [way],
        "output": False,
        "preview": [],
    }
    table = {
        "format": "irsplit-cost-table/1",
        "name": "two",
        "groups": [group, {**group, "name": "b", "pin": "server"}],
        "tensors": [tensor],
        "link": asdict(link("wifi")),
        "active_uw": 1,
        "idle_uw": 1,
        "server_load_percent": 100,
        "message": {"device_ns": 0, "exchange_ns": 0, "up_bytes": 0, "down_bytes": 0},
    }
    return _json_mutants(table, seed, count)


def read_table(mutant: bytes, folder: Path) -> None:
    from_json(mutant.decode(errors="surrogateescape"), "my.json")


def _json_mutants(value: Any, seed: int, count: int) -> Iterator[bytes]:
    random = Random(seed)
    for _ in range(count):
        kind = random.random()
        if kind < 0.05:
            yield b"[" * random.choice((2000, 200_000))
        elif kind < 0.3:
            yield damaged(json.dumps(value).encode(), random)
        else:
            yield json.dumps(damaged_json(value, random)).encode()


TARGETS = (
    Target("profiles: device", devices, plan_for_device),
    Target("profiles: link", links, plan_over_link),
    Target("profiles: measured", measured, plan_with_measured),
    Target("profiles: bench", benches, compare_benches),
    Target("profiles: cost table", tables, read_table),
)
