# Everything a laptop and CI need: Python 3.11 or newer, and make.
SHELL := /bin/sh
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help demo test test-postgres lint types bench docs lock clean

help:
	@echo "make demo    a year of flights: ingest, train, serve, replay, prove (Ctrl-C stops the server)"
	@echo "make test    lint, types and all tests, those of the database on SQLite and on PostgreSQL"
	@echo "make lint    ruff and mypy"
	@echo "make bench   the figures of docs/benchmarks.md"
	@echo "make docs    write the generated reference pages anew"
	@echo "make lock    resolve the dependencies anew"
	@echo "make clean   remove the environments and caches"

.venv/installed-%: requirements/%.txt requirements/build.txt pyproject.toml scripts/venv
	@scripts/venv $*
	@touch $@

demo: .venv/installed-demo
	@exec $(BIN)/davy demo

test: .venv/installed-test
	@scripts/need chromium test -x /usr/bin/chromium
	@scripts/peers mlflow3 mlflow2
	@scripts/need postgresql sh -c 'ls /usr/lib/postgresql/*/bin/initdb || command -v initdb'
	@scripts/suite

test-postgres: .venv/installed-test
	@scripts/need postgresql sh -c 'ls /usr/lib/postgresql/*/bin/initdb || command -v initdb'
	@DAVY_TEST_DATABASE=postgres $(BIN)/python -m pytest

lint: .venv/installed-test
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: .venv/installed-bench
	@scripts/need wrk test -x /usr/bin/wrk
	@for program in benchmarks/*.py; do echo "== $$program"; $(BIN)/python $$program || exit 1; done

docs: .venv/installed-test
	@$(BIN)/python scripts/reference.py

lock:
	@scripts/lock $(LOCK)

clean:
	rm -rf .venv .venv-mlflow3 .venv-mlflow2 .mypy_cache .ruff_cache .pytest_cache build dist
