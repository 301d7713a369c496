PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-arm test-wasm wheel fuzz lint bench clean

demo: .venv/engine
	rm -rf runs/demo
	$(BIN)/alexnet train --preset digits --out runs/demo
	$(BIN)/alexnet evaluate runs/demo
	$(BIN)/alexnet evaluate runs/demo --views 5
	$(BIN)/alexnet report runs/demo

test: .venv/tools
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# The kernels of other machines, which `make test` runs too: by g++-aarch64-linux-gnu and qemu-user; by clang, lld,
# wasi-libc, libc++-14-dev-wasm32, libclang-rt-14-dev-wasm32 and nodejs.
test-arm: .venv/tools
	$(BIN)/python -m pytest tests/engine/test_targets.py -k arm64

test-wasm: .venv/tools
	$(BIN)/python -m pytest tests/engine/test_targets.py -k wasm32

# A wheel in dist/ that proves itself in an empty environment without a compiler.
wheel: .venv/installed
	rm -rf dist build
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(BIN)/python tests/wheel.py dist

fuzz: .venv/tools
	$(BIN)/python -m tests.fuzz --record tests/fuzz/records/cases.json
	$(BIN)/python -m tests.fuzz.kills --kills 100 --record tests/fuzz/records/kills.json
	$(BIN)/python -m tests.fuzz.table

lint: .venv/tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/tools
	$(BIN)/alexnet bench all $(if $(IMAGES),--images $(IMAGES))

clean:
	rm -rf .venv runs build dist src/*.egg-info src/alexnet/engine/built

# The kernels, again where their sources changed since the package was installed.
.venv/engine: .venv/installed $(wildcard src/alexnet/engine/*.cpp src/alexnet/engine/*.h) src/alexnet/engine/build.py
	-$(BIN)/python -m alexnet.engine.build
	touch $@

.venv/installed: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e '.[train]'
	touch $@

.venv/tools: .venv/engine
	$(PIP) -e '.[dev]'
	touch $@
