"""Ushakov et al. 2018: a ResNet-v2-101 cut between phone and cloud over a 1 Mbit/s link."""

from dataclasses import dataclass, replace
from random import Random

from benchmarks.link import PACKET, Channel
from benchmarks.networks import FLOAT_BYTES, Network, resnet101_v2
from benchmarks.tables import fixed, markdown, verdict
from irsplit.planner.policies import Prefix, UshakovCut, ushakov_cut
from irsplit.profiles import Link, link

LEVELS = {
    "conv1": "conv1",
    "pool1": "pool1",
    "conv2_3": "conv2_x",
    "conv3_4": "conv3_x",
    "conv4_23": "conv4_x",
    "conv5_3": "conv5_x",
    "logits": "all",
}
RULE_LEVELS = ("conv1", "conv2_x", "conv3_x", "conv4_x", "conv5_x", "all")
MEMORY_MAX = 64_000_000
SENT_MAX = 1_664_000

# Traffic of an image as printed, in thousandths of its unit (megabyte or megabit); `all` in bytes.
PUBLISHED = {"conv1": 38_000, "conv2_x": 2_700, "conv3_x": 1_300}
PUBLISHED_RESULT_BYTES = 100
# CPUmax in percent -> (j, k, q, g, feasible) by the rule, the second through the fuzzy bound.
RULE_CHECKS = {25: (3, 3, 3, 3, True), 20: (3, 3, 3, 3, True), 12: (3, 2, 3, 2, False)}


@dataclass(frozen=True, slots=True)
class Level:
    """A boundary of the paper: what has run before it, and what crosses."""

    name: str
    shape: str
    elements: int
    weight_bytes: int
    macs: int


def levels(network: Network) -> list[Level]:
    found: list[Level] = []
    weight_bytes = macs = 0
    for layer in network.layers:
        weight_bytes += FLOAT_BYTES * layer.parameters
        macs += layer.total_macs
        if layer.name in LEVELS:
            out = layer.output
            shape = f"{out.height}x{out.width}x{out.channels}"
            found.append(Level(LEVELS[layer.name], shape, out.elements, weight_bytes, macs))
    return found


def rule(cpu_max_percent: int) -> UshakovCut:
    """The paper's rule over six levels; CPU is a share of multiply-adds, in 1/100 of a percent."""
    network = resnet101_v2()
    known = {level.name: level for level in levels(network)}
    prefixes = [
        Prefix(
            known[name].weight_bytes,
            known[name].macs * 10_000 // network.macs,
            FLOAT_BYTES * known[name].elements,
        )
        for name in RULE_LEVELS
    ]
    return ushakov_cut(prefixes, MEMORY_MAX, cpu_max_percent * 100, SENT_MAX)


def images_per_1000_s(size_bytes: int, over: Link, seed: int = 2018, images: int = 50) -> int:
    """Images in 1000 s, one in flight, on a virtual clock: no compute, the link alone under TCP.

    Damaged packets are sent again like lost ones; the next image leaves when the answer to this one
    is there.
    """
    lossy = replace(over, loss_ppm=over.loss_ppm + over.corruption_ppm, corruption_ppm=0)
    random = Random(seed)
    up, down = Channel(lossy, random), Channel(lossy, random, up=False)
    clock_s = 0.0
    for _ in range(images):
        packets = [min(PACKET, size_bytes - sent) for sent in range(0, size_bytes, PACKET)]
        clock_s = max(up.deliver(packet, clock_s).at_s for packet in packets)
        clock_s = down.deliver(PUBLISHED_RESULT_BYTES, clock_s).at_s
    return round(images * 1000 / clock_s)


def table() -> str:
    network, over = resnet101_v2(), link("ushakov-1mbit")
    rows: list[list[str]] = []
    for level in levels(network):
        raw, int8 = FLOAT_BYTES * level.elements, level.elements
        published, outcome = _against(level.name, raw, int8)
        rows.append(
            [
                level.name,
                level.shape,
                fixed(raw, 10**6, 3),
                fixed(int8, 10**6, 3),
                fixed(level.weight_bytes, 10**6, 2),
                fixed(100 * level.macs, network.macs, 1),
                fixed(images_per_1000_s(raw, over), 1000, 3),
                fixed(images_per_1000_s(int8, over), 1000, 3),
                published,
                outcome,
            ]
        )
    picture = network.input.elements
    rate = fixed(images_per_1000_s(picture, over), 1000, 3)
    rows.append(
        [
            "none: raw picture",
            "224x224x3",
            "-",
            fixed(picture, 10**6, 3),
            "0.00",
            "0.0",
            "-",
            rate,
            "-",
            "not published",
        ]
    )
    head = [
        "cut after",
        "shape",
        "fp32 MB",
        "int8 MB",
        "device weights MB",
        "MAC %",
        "fp32 img/s",
        "int8 img/s",
        "published",
        "verdict",
    ]
    checks = [_rule_row(percent, expected) for percent, expected in RULE_CHECKS.items()]
    return "\n".join(
        [
            (
                "## (a) Ushakov et al. 2018: ResNet-v2-101, 224x224 over 1 Mbit/s, 100 +- 20 ms "
                "each way, 1 % loss"
            ),
            "",
            (
                "Published traffic per image is printed with a unit that reads as megabyte or "
                "megabit; ours matches if raw"
            ),
            (
                "or int8 is within 5 % in either reading. Images per second: one in flight, the "
                "link alone, virtual clock."
            ),
            "",
            markdown(head, rows),
            "",
            (
                f"Rule over six levels: Mmax {MEMORY_MAX // 10**6} MB, Cmax*Dmax "
                f"{fixed(SENT_MAX, 10**6, 3)} MB:"
            ),
            "",
            markdown(
                [
                    "CPUmax",
                    "expected j k q g",
                    "ours j k q g",
                    "fuzzy bound",
                    "keeps all maxima",
                    "verdict",
                ],
                checks,
            ),
        ]
    )


def _against(name: str, raw: int, int8: int) -> tuple[str, str]:
    if name == "all":
        return f"{PUBLISHED_RESULT_BYTES} B", verdict(PUBLISHED_RESULT_BYTES, raw)
    if name not in PUBLISHED:
        return "-", "not published"
    megabytes = PUBLISHED[name] * 1000
    megabits = megabytes // 8
    matches = "match" in {
        verdict(reading, ours) for reading in (megabytes, megabits) for ours in (raw, int8)
    }
    text = f"{fixed(megabytes, 10**6, 1)} MB or Mbit = {fixed(megabits, 10**6, 3)} MB"
    return text, "match" if matches else "differs"


def _rule_row(percent: int, expected: tuple[int, int, int, int, bool]) -> list[str]:
    cut = rule(percent)
    ours = (cut.j, cut.k, cut.q, cut.g, cut.feasible)
    return [
        f"{percent} %",
        " ".join(map(str, expected[:4])),
        " ".join(map(str, ours[:4])),
        cut.fuzzy or "-",
        "yes" if cut.feasible else "no",
        "match" if ours == expected else "differs",
    ]
