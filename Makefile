# Two commands are all a new user needs: `make quickstart` and `make test`.
# Everything is installed into .venv, with pip, from PyPI.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
JOBS   ?= 4

.DEFAULT_GOAL := help
.PHONY: help quickstart test check lint types contracts coverage full soak openai-old official docs examples example-model portable \
	benchmark facts clean

help: ## Show the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "unigpu needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say: make quickstart PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.local: $(BIN)/python pyproject.toml
	$(PIP) install --quiet --editable '.[local]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(PIP) install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.local

quickstart: $(VENV)/.local ## Deploy, invoke, map, scale, stream and tear down on this machine
	$(BIN)/python examples/quickstart/main.py

test: $(VENV)/.dev ## Run the tests (parallel, random order, offline)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -q

check: lint types contracts ## Lint, types, and import contracts

lint: $(VENV)/.dev ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy and pyright, both strict
	$(BIN)/mypy
	$(BIN)/mypy tests/typing/api.py
	$(BIN)/pyright --pythonpath $(BIN)/python

contracts: $(VENV)/.dev ## import-linter: who may import whom
	$(BIN)/lint-imports

coverage: $(VENV)/.dev ## The tests, with branch coverage, also of child processes
	rm -f .coverage .coverage.*
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -q --cov=unigpu --cov-branch --cov-report=
	$(BIN)/coverage report --skip-covered --sort=cover

full: $(VENV)/.dev ## The whole matrices, of which `make test` runs a seeded tenth
	UNIGPU_FULL=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -q -m "full and not kill" -p no:randomly

soak: $(VENV)/.dev ## Kills and races on real processes, many rounds, of which `make test` runs a few
	UNIGPU_FULL=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -q -m "kill or soak" -p no:randomly

# The generation before: openai on httpx, where the newest is on httpx2. Its own environment, for its own tests only.
.venvs/openai-old/.made: pyproject.toml
	$(PYTHON) -m venv .venvs/openai-old
	.venvs/openai-old/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[local,testing,trio]' \
		'openai<3' hypothesis pytest pytest-xdist pytest-randomly
	@touch $@

openai-old: .venvs/openai-old/.made ## The tests of openai() with the generation before (openai 2, on httpx)
	.venvs/openai-old/bin/python -m pytest -q tests/openai

# One environment a vendor: their packages cannot be installed together.
VENDORS := $(patsubst tests/official/%/requirements.txt,%,$(wildcard tests/official/*/requirements.txt))

.venvs/%/.made: tests/official/%/requirements.txt pyproject.toml
	$(PYTHON) -m venv .venvs/$*
	.venvs/$*/bin/python -m pip --disable-pip-version-check install --quiet -r $<
	@touch $@

.PRECIOUS: .venvs/%/.made

official: $(VENV)/.dev $(VENDORS:%=.venvs/%/.made) ## The vendors' own clients and workers against our emulators
	UNIGPU_OFFICIAL=1 $(BIN)/python -m pytest -q -p no:randomly tests/official

$(VENV)/.docs: $(BIN)/python pyproject.toml
	$(PIP) install --quiet --editable '.[docs]'
	@touch $@

docs: $(VENV)/.docs ## Build the documentation into build/site, with warnings as errors
	$(BIN)/zensical build --strict --clean
	$(BIN)/python tests/support/docs_pages.py

$(VENV)/.examples: $(BIN)/python pyproject.toml
	$(PIP) install --quiet --editable '.[examples]'
	@touch $@

examples: $(VENV)/.examples ## Run every example but the model
	for each in batch cleanup http_service; do echo "== $$each"; $(BIN)/python examples/$$each/main.py || exit 1; done
	cd examples/web && ../../$(BIN)/python -m pytest -q -p no:cacheprovider

# In an environment of its own: what a model needs is nobody else's dependency.
.venvs/example-model/.made: pyproject.toml
	$(PYTHON) -m venv .venvs/example-model
	.venvs/example-model/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[example-model]'
	@touch $@

example-model: .venvs/example-model/.made ## Serve a real small model on this machine
	.venvs/example-model/bin/python examples/model/main.py

portable: $(VENV)/.dev ## One handler, the image's recipe without Docker, the same calls on every platform
	$(BIN)/python examples/portable/main.py

benchmark: $(VENV)/.dev ## What the numbers in the docs were measured with
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

facts: $(VENV)/.dev ## Write docs/providers/ from the facts, and list what was read over 180 days ago
	$(BIN)/python scripts/provider_pages.py
	$(BIN)/python -m unigpu facts --older 180

clean: ## Remove what the above made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* .cache build dist
