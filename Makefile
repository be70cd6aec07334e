# Everything a developer does is one of these targets; `make help` lists them.
# A Python of your own choice: make setup PYTHON=/path/to/python3.12

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
LINT_PATHS := modeling processing training evaluation src spaces tests benchmarks examples docs setup.py
# Nothing is downloaded at run time: demo and tests make or ship what they read.
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_EVALUATE_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
# Whole runs are split among workers, one per core (tests/conftest.py), a file's tests in one of them; named TESTS
# run in one process. make test WORKERS=N: N workers, 0: none.
WORKERS := $(if $(TESTS),0,auto)
pytest = $(OFFLINE) $(1)/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: setup constraints demo test test-all test-newest test-lowest lint docs bench soak space clean help

setup: $(STAMP)  ## make .venv and install the tested versions of everything into it (once; again when they change)

# One resolver run for torch, torchvision and all the rest: their compiled operators have to match.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "lookhear needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make setup PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv

# Needs only uv, as the constraints cannot be installed where pyproject.toml has moved away from them.
constraints: | $(BIN)/uv  ## write constraints.txt: the newest versions that pyproject.toml allows, for each Python
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade --no-annotate --quiet \
	  --custom-compile-command 'make constraints' --output-file constraints.txt

$(BIN)/uv: | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt uv

demo: $(STAMP)  ## read a talking face: a synthesized one, or VIDEO=path/to/clip.mp4; results go to demo/
	@$(OFFLINE) $(BIN)/lookhear demo --output demo $(if $(VIDEO),--video '$(VIDEO)')

test: $(STAMP)  ## the tests that take seconds
	$(call pytest,.venv) -m "not slow" $(TESTS)

test-all: $(STAMP)  ## every test, the slow ones too
	$(call pytest,.venv) $(TESTS)

# Both resolve anew each time, into environments of their own, which takes seconds where nothing has changed.
test-newest: | $(BIN)/uv  ## `make test` with the newest versions: of transformers even those that pyproject.toml rules out
	@test -x .venv-newest/bin/python || $(BIN)/uv venv --quiet --seed --python $(PYTHON) .venv-newest
	@echo transformers > .venv-newest/overrides.txt
	$(BIN)/uv pip install --quiet --python .venv-newest/bin/python --upgrade --override .venv-newest/overrides.txt -e '.[all,dev]'
	$(call pytest,.venv-newest) -m "not slow" $(TESTS)

test-lowest: | $(BIN)/uv  ## `make test` with the lowest versions that pyproject.toml allows, on Python 3.11
	@test -x .venv-lowest/bin/python || $(BIN)/uv venv --quiet --seed --python 3.11 .venv-lowest
	$(BIN)/uv pip install --quiet --python .venv-lowest/bin/python --upgrade --resolution lowest-direct -e '.[all,dev]'
	$(call pytest,.venv-lowest) -m "not slow" $(TESTS)

lint: $(STAMP)  ## ruff, transformers' model linter, types
	$(BIN)/ruff check $(LINT_PATHS)
	$(BIN)/ruff format --check $(LINT_PATHS)
	$(BIN)/python .ci/lint_models
	$(BIN)/mypy

docs: $(STAMP)  ## build the documentation into site/, without network; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(OFFLINE) $(BIN)/mkdocs build

bench: $(STAMP)  ## every table of benchmarks/, printed
	@set -e; for script in benchmarks/*.py; do [ -e "$$script" ] || { echo "benchmarks/ holds no script yet"; break; }; \
	  echo "== $$script"; $(OFFLINE) $(BIN)/python "$$script"; done

soak: $(STAMP)  ## kills, full disks and damaged files for MINUTES=60, with SEED=0; a table at the end
	$(OFFLINE) $(BIN)/python -m pytest -n 0 -m slow tests/reliability --minutes $(or $(MINUTES),60) --seed $(or $(SEED),0)

space: $(STAMP)  ## serve the Gradio Space on this machine (GRADIO_SERVER_PORT=N: on another port than 7860)
	cd spaces/lookhear && $(OFFLINE) GRADIO_ANALYTICS_ENABLED=False ../../$(BIN)/python app.py

clean:  ## remove what was built and cached; the environments stay
	rm -rf build dist demo site spaces/lookhear/examples src/lookhear.egg-info .pytest_cache .ruff_cache .mypy_cache
	find modeling processing training evaluation spaces src tests benchmarks examples docs -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
