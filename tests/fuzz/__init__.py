"""Hostile inputs of every kind that is read: a short run in the tests, a long one by `make fuzz`."""

# One per kind of input, each with FAMILIES.
MODULES: list[str] = [
    "tests.fuzz.images",
    "tests.fuzz.image_bombs",
]
