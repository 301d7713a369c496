PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench clean

demo: .venv/installed
	rm -rf runs/demo
	$(BIN)/alexnet train --preset digits --out runs/demo
	$(BIN)/alexnet evaluate runs/demo
	$(BIN)/alexnet evaluate runs/demo --views 5
	$(BIN)/alexnet report runs/demo

test: .venv/tools
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: .venv/tools
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/tools
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[export,openvino]'
	$(BIN)/alexnet bench all $(if $(IMAGES),--images $(IMAGES))

clean:
	rm -rf .venv runs build src/*.egg-info

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/tools: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
