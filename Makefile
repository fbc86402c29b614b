# Everything a laptop and CI need: Python 3.11 or newer, and make.
SHELL := /bin/sh
BIN := .venv/bin
.DEFAULT_GOAL := help
# What touches the metadata database runs on PostgreSQL too; in these folders, that is all but what computes, or drives workers, and leaves it alone.
ON_POSTGRES := $(wildcard $(addprefix tests/,tracking registry search protocols auth store/test_database.py store/test_journal.py release gate monitoring cli server))
NOT_THERE := $(addprefix --ignore=tests/,search/test_language.py release/test_simulations.py release/test_kernels.py release/test_plan.py \
	gate/test_planted.py gate/test_requests.py gate/test_outputs.py gate/test_paired.py monitoring/test_trained.py cli/test_words.py cli/test_paths.py \
	server/test_failures.py server/test_udfs.py server/test_code.py server/test_http_page.py server/test_timeout.py)
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

test: .venv/installed-test lint
	@scripts/need chromium test -x /usr/bin/chromium
	@scripts/peers mlflow3 mlflow2
	@scripts/need postgresql sh -c 'ls /usr/lib/postgresql/*/bin/initdb || command -v initdb'
	@scripts/suite

test-postgres: .venv/installed-test
	@scripts/need postgresql sh -c 'ls /usr/lib/postgresql/*/bin/initdb || command -v initdb'
	@DAVY_TEST_DATABASE=postgres $(BIN)/python -m pytest $(ON_POSTGRES) $(NOT_THERE)

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
