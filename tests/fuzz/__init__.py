"""Hostile inputs of every kind that is read: a short run in the tests, a long one by `make fuzz`."""

# One per kind of input, each with FAMILIES, and how many seeds of each family the long run takes.
SEEDS: dict[str, int] = {
    "images": 100,
    "image_bombs": 20,
    "archives": 60,
    "parquet": 60,
    "ilsvrc": 60,
    "stores": 60,
    "runs": 40,
    "models": 40,
    "surface": 100,
}
MODULES = [f"tests.fuzz.{name}" for name in SEEDS]
