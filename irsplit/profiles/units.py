"""Units of profiles and of the command line, converted exactly to the integers of the cost table."""

import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction

# unit -> (dimension, factor to the dimension's base unit)
UNITS: dict[str, tuple[str, Fraction]] = {
    **{
        unit: ("rate", Fraction(f))
        for unit, f in (("bit/s", 1), ("kbit/s", 10**3), ("Mbit/s", 10**6), ("Gbit/s", 10**9))
    },
    **{
        unit: ("time", Fraction(f))
        for unit, f in (("ns", 1), ("us", 10**3), ("ms", 10**6), ("s", 10**9))
    },
    **{unit: ("part", Fraction(f)) for unit, f in (("ppm", 1), ("%", 10**4))},
    **{unit: ("power", Fraction(f)) for unit, f in (("uW", 1), ("mW", 10**3), ("W", 10**6))},
    **{
        unit: ("energy", Fraction(f))
        for unit, f in (("nJ", 1), ("uJ", 10**3), ("mJ", 10**6), ("J", 10**9))
    },
    **{
        unit: ("size", Fraction(f))
        for unit, f in (("B", 1), ("kB", 10**3), ("MB", 10**6), ("GB", 10**9))
    },
    **{unit: ("size", Fraction(f)) for unit, f in (("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30))},
    **{
        unit: ("bytes rate", Fraction(f))
        for unit, f in (("B/s", 1), ("MB/s", 10**6), ("GB/s", 10**9))
    },
    **{
        unit: ("work rate", Fraction(f))
        for unit, f in (("MMAC/s", 10**6), ("GMAC/s", 10**9), ("TMAC/s", 10**12))
    },
    "times": ("ratio", Fraction(1)),
    "mW/Mbit/s": ("power per rate", Fraction(1000)),  # base: uW per Mbit/s
}
BASES = {
    "rate": "bit/s",
    "time": "ns",
    "part": "ppm",
    "power": "uW",
    "energy": "nJ",
    "size": "B",
    "bytes rate": "B/s",
}

MOST = 10**17
"""Of any quantity in its base unit: three years, a hundred petabytes, a hundred petabits a second."""
_MOST_DIGITS = 40

_QUANTITY = re.compile(r"\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z%/]*)\s*")


def convert(value: Decimal | int, unit: str, dimension: str) -> Fraction:
    """A number in the base unit of its dimension. Raises ValueError, saying which units fit."""
    if unit not in UNITS or UNITS[unit][0] != dimension:
        raise ValueError(
            f"unit {unit!r} is not a unit of {dimension}; write one of: {', '.join(of(dimension))}"
        )
    # The exponent first: as a fraction, 1e999999999 has as many digits.
    if not -_MOST_DIGITS <= Decimal(value).adjusted() <= _MOST_DIGITS:
        raise ValueError(f"{Decimal(value):.3g} {unit} is out of range")
    converted = Fraction(value) * UNITS[unit][1]
    if abs(converted) > MOST:
        raise ValueError(f"{Decimal(value):.3g} {unit} is out of range")
    return converted


def of(dimension: str) -> list[str]:
    return [unit for unit, (kind, _) in UNITS.items() if kind == dimension]


def parse(text: str, dimension: str) -> int:
    """`64MB`, `20 ms`, `5.85Mbit/s` as an integer in the base unit. Raises ValueError with a text for the user."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is not a number with a unit; write for example 20{of(dimension)[0]}"
        )
    try:
        return round(convert(Decimal(found[1]), found[2], dimension))
    except InvalidOperation as error:
        raise ValueError(f"{found[1]!r} is not a number") from error
