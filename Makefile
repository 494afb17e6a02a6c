# Each target creates .venv if it is missing and installs by itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint check clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
# timm on its own, because it asks for torchvision, and that for a CUDA build of torch: tests/zoo_shims.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps timm
	touch $@

demo: $(STAMP)
	$(BIN)/torchwatch demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu" --durations=15

lint: $(STAMP)
	$(BIN)/ruff check torchwatch integrations tests benchmarks docs
	$(BIN)/ruff format --check torchwatch integrations tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports

# All tests, slow ones too, and the benches; writes what it saw to docs/checked.md.
check: lint
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[pretrained]"
	$(BIN)/python benchmarks/check_all.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
