"""Hostile inputs of every kind that is read: a short run in the tests, a long one by `make fuzz`."""

# One per kind of input, each with FAMILIES, and how many seeds of each family the long run takes.
SEEDS: dict[str, int] = {
    "surface": 100,
}
MODULES = [f"tests.fuzz.{name}" for name in SEEDS]
