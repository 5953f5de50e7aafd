# The only entry: every command of the project is a target here, and every target is a line or two.
.DEFAULT_GOAL := help
.PHONY: help run heic train test check bench load docs screenshots format lock upgrade hooks clean

VENV := .venv
BIN := $(VENV)/bin
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
install = $(BIN)/python -m pip install --quiet --disable-pip-version-check

help:  ## Say what there is
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

run: $(VENV)/run.stamp  ## Install, prepare the models and serve http://127.0.0.1:8000
	$(BIN)/shoplens models prepare
	$(BIN)/shoplens serve $(ARGS)

heic: $(VENV)/heic.stamp  ## Let it read HEIC photos, too (libraries under the LGPL and the GPL)

train: $(VENV)/torch.stamp  ## Let it train with torch (recipes transfer and scratch)

test: $(VENV)/test.stamp $(VENV)/torch.stamp  ## Run every test (ARGS="-k name" for some)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/dev.stamp $(VENV)/torch.stamp  ## Format, lint, types, layers, hygiene, lock, reference pages, workflow
	$(BIN)/pre-commit run --all-files --color never

bench: $(VENV)/test.stamp  ## Measure the raw loop, the engine and the server beside each other
	$(BIN)/python -m bench $(ARGS)

load: $(VENV)/test.stamp  ## Let many people use a system of so many workers (ARGS="--workers 1 2 4 --users 20")
	$(BIN)/python -m load $(ARGS)

docs: $(VENV)/test.stamp  ## Write docs/reference from the code and follow every link
	$(BIN)/python -m tools.reference write
	$(BIN)/python -m tools.links

screenshots: $(VENV)/test.stamp  ## Take the pictures of the pages that the README shows
	$(BIN)/python -m tools.screenshots

format: $(VENV)/dev.stamp  ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format .

lock: $(VENV)/dev.stamp  ## Make requirements/*.lock fit pyproject.toml, keeping versions where possible
	PATH="$(BIN):$$PATH" $(BIN)/python -m tools.lock write

upgrade: $(VENV)/dev.stamp  ## The same with the newest versions
	PATH="$(BIN):$$PATH" $(BIN)/python -m tools.lock upgrade

hooks: $(VENV)/dev.stamp  ## Let git run the checks before every commit
	$(BIN)/pre-commit install

clean:  ## Remove what these commands made, but no data
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis

# Each lock holds the smaller ones, with the same versions; a stamp is as new as what it was installed from.
$(VENV)/%.stamp: requirements/%.lock | $(BIN)/python
	$(install) --require-hashes -r $<
	$(install) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/torch.stamp: requirements/torch.txt requirements/train.lock | $(VENV)/train.stamp
	$(install) -r $<
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Shoplens needs Python 3.11, 3.12 or 3.13; none was found. Install one, or name it: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -c '$(FITS)' || { echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13." >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
