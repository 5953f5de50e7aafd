# Every command of the project is a target here.
.DEFAULT_GOAL := help
.PHONY: help run install heic train quick test check bench load docs screenshots format lock upgrade hooks clean

VENV := .venv
BIN := $(VENV)/bin
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
# Tests wait for servers and timeouts for a good part of their time: more processes than cores, at most six.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(6, (os.cpu_count() or 1) + 3))')
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile
install = $(BIN)/python -m pip install --quiet --disable-pip-version-check

help:  ## List the commands
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

run: $(VENV)/run.stamp  ## Install, build the models and serve http://127.0.0.1:8000 from ./shoplens-data
	@test -n "$$SHOPLENS_DATA_DIR" || mkdir -p -m 700 shoplens-data
	$(BIN)/shoplens models prepare
	$(BIN)/shoplens serve $(ARGS)

install: $(VENV)/dev.stamp $(VENV)/test.stamp $(VENV)/torch.stamp  ## Install what `make check` and `make test` need

heic: $(VENV)/heic.stamp  ## Install HEIC support (libraries under the LGPL and the GPL)

train: $(VENV)/torch.stamp  ## Install what training needs: scikit-learn and torch

quick: $(VENV)/test.stamp  ## Run the unit tests: no torch, Ray, browser or server, under a minute
	$(PYTEST) -k "not postgresql" tests/unit $(ARGS)

test: $(VENV)/test.stamp $(VENV)/torch.stamp  ## Run all tests (ARGS="-k name" for some)
	$(BIN)/python -m tools.browser
	$(PYTEST) --no-loadscope-reorder $(ARGS)

check: $(VENV)/dev.stamp $(VENV)/torch.stamp  ## Check format, lint, types, imports, files, locks, reference pages and workflows
	$(BIN)/pre-commit run --all-files --color never

bench: $(VENV)/test.stamp  ## Measure the raw loop, the engine and the server in one run
	$(BIN)/python -m bench $(ARGS)

load: $(VENV)/test.stamp  ## Load-test N workers (ARGS="--workers 1 2 4 --users 20")
	$(BIN)/python -m load $(ARGS)

docs: $(VENV)/test.stamp  ## Write docs/reference and the dashboard from the code, and check all links
	$(BIN)/python -m tools.reference write
	$(BIN)/python -m tools.dashboard
	$(BIN)/python -m tools.links

screenshots: $(VENV)/test.stamp  ## Take the screenshots that the README shows
	$(BIN)/python -m tools.screenshots

format: $(VENV)/dev.stamp  ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format .

lock: $(VENV)/dev.stamp  ## Update requirements/*.lock from pyproject.toml, keeping versions where possible
	PATH="$(BIN):$$PATH" $(BIN)/python -m tools.lock write

upgrade: $(VENV)/dev.stamp  ## Update requirements/*.lock to the latest versions
	PATH="$(BIN):$$PATH" $(BIN)/python -m tools.lock upgrade

hooks: $(VENV)/dev.stamp  ## Run the checks before each git commit
	$(BIN)/pre-commit install

clean:  ## Remove environments, caches and builds; keeps data
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis

# Each lock contains the smaller ones with the same versions. A stamp is newer than the lock that was installed.
$(VENV)/%.stamp: requirements/%.lock | $(BIN)/python
	$(install) --require-hashes -r $<
	$(install) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/torch.stamp: requirements/torch.txt requirements/train.lock | $(VENV)/train.stamp
	$(install) -r $<
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Shoplens needs Python 3.11, 3.12 or 3.13, and none was found. Install one, or pass its path: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -c '$(FITS)' || { echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13." >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot create virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
