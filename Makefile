# `make demo` and `make test` are each the only command needed on a fresh machine with Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-versions fuzz seeds check style clean
.DEFAULT_GOAL := test

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $@

demo: .venv/installed  ## train the quickstart (under two minutes on two cores)
	$(BIN)/stlm train configs/quickstart.yaml --overwrite

test: .venv/installed  ## a process for each core; a file's tests stay together
	$(BIN)/pytest -n auto --dist loadfile

test-versions: .venv/installed  ## models, scorer, training on the lowest and the newest versions allowed
	$(BIN)/python tests/versions.py

fuzz: .venv/installed  ## thousands of damaged files; kill training at every file operation and at random moments
	STLM_FUZZ=1 $(BIN)/pytest tests/damaged -n auto --dist loadfile
	$(BIN)/python -m tests.fuzz

seeds: .venv/installed  ## guessers that know no facts, on ten seeds of each shipped spec
	STLM_SEEDS=1 $(BIN)/pytest tests/eval/facts/test_guessers.py -n auto

check: .venv/installed  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

style: .venv/installed  ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .versions build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache
