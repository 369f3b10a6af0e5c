"""Units of profiles and of the command line, converted exactly to integers of base units."""

import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction

_FACTORS: dict[str, dict[str, int]] = {
    "rate": {"bit/s": 1, "kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9},
    "time": {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9},
    "part": {"ppm": 1, "%": 10**4},
    "power": {"uW": 1, "mW": 10**3, "W": 10**6},
    "energy": {"nJ": 1, "uJ": 10**3, "mJ": 10**6, "J": 10**9},
    "size": {
        "B": 1,
        "kB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "KiB": 2**10,
        "MiB": 2**20,
        "GiB": 2**30,
    },
    "bytes rate": {"B/s": 1, "MB/s": 10**6, "GB/s": 10**9},
    "work rate": {"MMAC/s": 10**6, "GMAC/s": 10**9, "TMAC/s": 10**12},
    "ratio": {"times": 1},
    "power per rate": {"mW/Mbit/s": 1000},  # in uW per Mbit/s
}
"""By dimension, what one of each unit is in the base unit of the dimension."""

MOST = 10**17
"""The largest quantity in its base unit: three years, a hundred petabytes or petabits a second."""
_MOST_DIGITS = 40

_QUANTITY = re.compile(r"\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z%/]*)\s*")


def convert(value: Decimal | int, unit: str, dimension: str) -> Fraction:
    """Convert a number to the base unit of its dimension.

    Args:
        value: The number.
        unit: Its unit.
        dimension: What it measures: `rate`, `time`, `part`, `power`, `energy`, `size`,
            `bytes rate`, `work rate`, `ratio` or `power per rate`.

    Raises:
        ValueError: The unit is not one of the dimension, or the number is out of range.
    """
    factors = _FACTORS[dimension]
    if unit not in factors:
        raise ValueError(
            f"unit {unit!r} is not a unit of {dimension}; write one of: {', '.join(factors)}"
        )

    # Check the exponent first: as a fraction, 1e999999999 has as many digits.
    if not -_MOST_DIGITS <= Decimal(value).adjusted() <= _MOST_DIGITS:
        raise ValueError(f"{Decimal(value):.3g} {unit} is out of range")

    converted = Fraction(value) * factors[unit]
    if abs(converted) > MOST:
        raise ValueError(f"{Decimal(value):.3g} {unit} is out of range")
    return converted


def parse(text: str, dimension: str) -> int:
    """Read a quantity such as `64MB`, `20 ms` or `5.85Mbit/s`.

    Args:
        text: The number and its unit.
        dimension: What it measures; see `convert`.

    Returns:
        The quantity in the base unit, rounded to an integer.

    Raises:
        ValueError: The text is no such quantity; the message is meant for the user.

    Example:
        >>> parse("20 ms", "time")
        20000000
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        example = f"20{next(iter(_FACTORS[dimension]))}"
        raise ValueError(f"{text!r} is not a number with a unit; write for example {example}")

    # The pattern also lets texts such as `1.2.3` through, which are no numbers.
    number, unit = match[1], match[2]
    try:
        return round(convert(Decimal(number), unit, dimension))
    except InvalidOperation as error:
        raise ValueError(f"{number!r} is not a number") from error
