"""Mutants for what reads strangers' files: modules with `mutants(seed, count)` and `TARGETS`.

`target` says what a target is, `damage` changes bytes, `worker` reads mutants in a bounded process.
All of them run in `python -m benchmarks.fuzz_readers`, some of each in
tests/test_hostile_readers.py.
"""
