"""The papers' tables in one command: `python -m benchmarks.papers`. Byte-identical from run to run."""

from benchmarks import paper_jointdnn, paper_neurosurgeon, paper_ushakov


def report() -> str:
    tables = (paper_ushakov.table(), paper_jointdnn.table(), paper_neurosurgeon.table())
    return "\n\n".join(("# The papers' tables: published, ours, verdict", *tables)) + "\n"


if __name__ == "__main__":
    print(report(), end="")
