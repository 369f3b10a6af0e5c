"""Neurosurgeon: the authors' own per-layer measurements, replanned."""

import csv
import os
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from benchmarks.tables import fixed, markdown, verdict
from irsplit.planner import plan
from irsplit.planner.cost import CostTable, CostTensor, StageCost, TransferOption
from irsplit.planner.policies import neurosurgeon
from irsplit.profiles import Link

VARIABLE = "IRSPLIT_NEUROSURGEON"
DEFAULT = Path(__file__).parent.parent.parent / "shared" / "data" / "neurosurgeon"
PROCESSORS = ("cpu", "gpu")
LINKS = ("wifi", "lte", "3g")

# AlexNet totals in the paper, ms: mobile CPU, mobile GPU, server.
ALEXNET_MS = {"mobile_cpu_ms": 382, "mobile_gpu_ms": 81, "server_gpu_ms": 6}

Row = dict[str, str]


def folder() -> Path | None:
    """Where the measurements are, or None. They are not part of the project."""
    found = Path(os.environ.get(VARIABLE, DEFAULT))
    return found if (found / "layers.csv").exists() else None


def _rows(data: Path, name: str) -> list[Row]:
    with (data / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _integer(text: str, factor: int) -> int:
    return round(Fraction(Decimal(text)) * factor)


def links(data: Path) -> dict[str, Link]:
    found: dict[str, Link] = {}
    for row in _rows(data, "links.csv"):
        up, down = (Fraction(Decimal(row[f"{side}link_mbit_s"])) for side in ("up", "down"))
        alpha = {
            side: Fraction(Decimal(row[f"alpha_{side}_mw_per_mbit_s"])) for side in ("up", "down")
        }
        beta = Fraction(Decimal(row["beta_mw"]))
        found[row["link"]] = Link(
            row["link"],
            round(up * 10**6),
            round(down * 10**6),
            up_uw=round((alpha["up"] * up + beta) * 1000),
            down_uw=round((alpha["down"] * down + beta) * 1000),
        )
    return found


def cost_tables(data: Path) -> dict[tuple[str, str, str], CostTable]:
    """(network, mobile processor, link) -> its chain. As published, the way down is free."""
    layers: dict[str, list[Row]] = {}
    for row in _rows(data, "layers.csv"):
        layers.setdefault(row["app"], []).append(row)
    apps = {row["app"]: row for row in _rows(data, "apps.csv")}
    return {
        (app, processor, name): _chain(app, rows, apps[app], processor, over)
        for app, rows in layers.items()
        for processor in PROCESSORS
        for name, over in links(data).items()
    }


def _chain(app: str, rows: list[Row], about: Row, processor: str, over: Link) -> CostTable:
    milliwatts = _integer(about[f"mobile_{processor}_watt"], 1000)
    groups: list[StageCost] = []
    tensors = [
        CostTensor(
            "input",
            None,
            (0,),
            _raw(rows[0]["input_elements"], int(about["input_bytes_per_element"])),
            (),
        )
    ]
    for index, row in enumerate(rows):
        device_ns = _integer(row[f"mobile_{processor}_ms"], 10**6)
        server_ns = _integer(row["server_gpu_ms"], 10**6)
        groups.append(
            StageCost(row["layer"], device_ns, server_ns, device_nj=milliwatts * device_ns // 1000)
        )
        last = index + 1 == len(rows)
        down = (TransferOption("raw", 0),) if last else _raw(row["output_elements"], 4)
        readers = () if last else (index + 1,)
        tensors.append(
            CostTensor(
                row["layer"], index, readers, _raw(row["output_elements"], 4), down, output=last
            )
        )
    return CostTable(app, tuple(groups), tuple(tensors), over)


def _raw(elements: str, size: int) -> tuple[TransferOption, ...]:
    return (TransferOption("raw", int(elements) * size),)


def table() -> str:
    title = "## (c) Neurosurgeon: the authors' measurements, 8 networks x mobile CPU, GPU x 3 links"
    data = folder()
    if data is None:
        return (
            f"{title}\n\n"
            f"NOT RUN: no measurements in {DEFAULT.name}; name their folder in {VARIABLE}."
        )
    rows: list[list[str]] = []
    gains: dict[str, list[int]] = {"latency": [], "energy": []}
    for (app, processor, name), costs in cost_tables(data).items():
        cells = [app, processor, name]
        for objective in ("latency", "energy"):
            found = plan(costs, objective)
            assert found.value == neurosurgeon(costs, objective).value
            server_only = next(
                b.value for b in found.baselines if b.name == "server only, raw input"
            )
            gains[objective].append(100 * server_only // found.value)
            cut = found.placements.count("device")
            after = (
                "server only"
                if cut == 0
                else "device only"
                if cut == len(costs.stages)
                else costs.stages[cut - 1].name
            )
            cells += [
                after,
                fixed(found.value, 10**6, 2),
                f"{fixed(gains[objective][-1], 100, 2)}x",
            ]
        rows.append([*cells, "-", "not published"])
    head = [
        "network",
        "mobile",
        "link",
        "latency cut after",
        "ms",
        "gain",
        "energy cut after",
        "mJ",
        "gain",
        "published",
        "verdict",
    ]
    return "\n".join(
        [
            title,
            "",
            (
                "Gain is against the status quo, everything on the server with the raw input. GPU "
                "rows: the authors timed"
            ),
            (
                "without synchronising, so cuts before the first fully connected layer look free; "
                "only CPU rows are sound."
            ),
            "",
            markdown(head, rows),
            "",
            markdown(
                ["headline", "published", "ours", "verdict"], [*_headlines(gains), *_totals(data)]
            ),
        ]
    )


def _headlines(gains: dict[str, list[int]]) -> list[list[str]]:
    latency = gains["latency"]
    saved = [1000 - 100_000 // gain for gain in gains["energy"]]
    figures = (
        ("latency gain, mean", "3.1x", 310, sum(latency) // len(latency)),
        ("latency gain, best", "40.7x", 4070, max(latency)),
        ("energy saved, mean", "59.5 %", 595, sum(saved) // len(saved)),
        ("energy saved, best", "94.7 %", 947, max(saved)),
    )
    return [
        [
            name,
            printed,
            f"{fixed(ours, 100, 2)}x" if "x" in printed else f"{fixed(ours, 10, 1)} %",
            verdict(number, ours),
        ]
        for name, printed, number, ours in figures
    ]


def _totals(data: Path) -> list[list[str]]:
    rows = [row for row in _rows(data, "layers.csv") if row["app"] == "imc"]
    totals = {column: sum(_integer(row[column], 10**6) for row in rows) for column in ALEXNET_MS}
    return [
        [
            f"AlexNet total, {column[:-3]}",
            f"{published} ms",
            f"{fixed(totals[column], 10**6, 1)} ms",
            verdict(published * 10**6, totals[column]),
        ]
        for column, published in ALEXNET_MS.items()
    ]
