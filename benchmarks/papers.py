"""The papers' tables in one command: `python -m benchmarks.papers`. Byte-identical from run to run.

`--measure` adds the table of what can only be measured: it builds the network, cuts it and runs its
halves.
"""

import argparse

from benchmarks import measured_ushakov, paper_jointdnn, paper_neurosurgeon, paper_ushakov


def report() -> str:
    tables = (paper_ushakov.table(), paper_jointdnn.table(), paper_neurosurgeon.table())
    return "\n\n".join(("# The papers' tables: published, ours, verdict", *tables)) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--measure", action="store_true", help="add the measured columns of table (a)"
    )
    arguments = parser.parse_args()
    print(report(), end="")
    if arguments.measure:
        print(f"\n{measured_ushakov.table()}")


if __name__ == "__main__":
    main()
