"""Hostile inputs of every kind that is read: a short run in the tests, a long one by `make fuzz`."""

# One per kind of input, each with FAMILIES, and how many seeds of each family the long run takes.
SEEDS: dict[str, int] = {
    "images": 265,
    "image_bombs": 25,
    "archives": 20,
    "parquet": 20,
    "ilsvrc": 20,
    "stores": 20,
    "runs": 10,
    "models": 20,
    "surface": 50,
}
MODULES = [f"tests.fuzz.{name}" for name in SEEDS]
