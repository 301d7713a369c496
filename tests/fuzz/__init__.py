"""Hostile inputs of every kind that is read: a short run in the tests, a long one by `make fuzz`."""

MODULES: list[str] = [  # one per kind of input, each with FAMILIES
    "tests.fuzz.archives",
    "tests.fuzz.ilsvrc",
    "tests.fuzz.parquet",
]
