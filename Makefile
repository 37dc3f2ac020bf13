# Everything a new clone needs: `make demo` and `make test`. Each target sets itself up.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.ready
# Thousands of short processes run here: each would compile what it loads.
unexport PYTHONDONTWRITEBYTECODE
ARGS ?=
# Twice as many as there are cores, and four: tests wait for two thirds of their time, for what comes by itself, and on a
# machine that others use as well each worker has a share. A module stays whole: its tests share a gate. In our order: see
# tests/conftest.py.
CORES ?= -n $(shell echo $$(( $$(nproc) * 2 + 4 ))) --dist loadfile --no-loadscope-reorder

.PHONY: help demo test lint types format bench fuzz soak properties vm docs lock clean setup fast wheel deb

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) fast  ## virtual environment, locked dependencies, Debian packages, compiled parts

# Whoever comes while another sets up waits for it, and finds it done.
$(STAMP): requirements.lock pyproject.toml packaging/setup.sh
	@packaging/setup.sh $(VENV) $@

# Does nothing when the build fits the source. Where it cannot be built it says so; the parts then run interpreted.
fast: $(STAMP)  ## compiles the parts, a minute; COFFERDAM_FAST=0 leaves it out
	@[[ "$$COFFERDAM_FAST" == 0 ]] || $(PY) packaging/fast.py

demo: $(STAMP)  ## a simulated water works behind the gate; ARGS=--tour runs it unattended
	@[[ "$$COFFERDAM_FAST" == 0 ]] || $(PY) packaging/fast.py --behind
	@$(VENV)/bin/cofferdam lab demo $(ARGS)

test: $(STAMP) fast  ## the whole test suite, on all cores; ARGS=--folder-times says where the time went
	@packaging/debian-packages.sh test
	@$(PY) -m pytest $(CORES) $(ARGS)

lint: $(STAMP)  ## style and banned calls
	@$(VENV)/bin/ruff check src tests bench tools
	@$(VENV)/bin/ruff format --check src tests bench tools

types: $(STAMP)  ## strict types over source and tests
	@$(VENV)/bin/mypy src tests

format: $(STAMP)
	@$(VENV)/bin/ruff check --fix -q src tests bench tools; $(VENV)/bin/ruff format -q src tests bench tools

bench: $(STAMP) fast  ## side by side with HAProxy; JSON in bench/results
	@packaging/debian-packages.sh bench
	@$(PY) bench/run.py $(ARGS)

fuzz: $(STAMP)  ## fuzz the parsers, SECONDS=600
	@$(PY) -m tests.fuzz --seconds $(or $(SECONDS),600) $(ARGS)

soak: $(STAMP) fast  ## long runs and many repetitions that the suite leaves out: hours; KILLS=1000, GATES=1, SECONDS=3600
	@packaging/debian-packages.sh test
	@COFFERDAM_SOAK_KILLS=$(or $(KILLS),1000) COFFERDAM_SOAK_GATES=$(or $(GATES),1) \
		COFFERDAM_SOAK_SECONDS=$(or $(SECONDS),3600) $(PY) -m pytest -m soak $(ARGS)

properties: $(STAMP)  ## the property tests with new draws each time, for hours
	@$(PY) -m pytest -m hypothesis --hypothesis-profile fuzz --timeout 0 $(CORES) $(ARGS)

vm: $(STAMP) fast  ## as root: boots a Debian 12 in QEMU and checks it; ARGS="--group NAME", ARGS=--list
	@packaging/debian-packages.sh vm
	@$(PY) -m tests.vm $(ARGS)

wheel: $(STAMP)  ## dist/*.whl: the package without its dependencies and compiled parts
	@$(PY) -m pip wheel --quiet --no-deps -w dist . && ls dist/*.whl

deb: $(STAMP)  ## dist/cofferdam_*.deb: for this Debian and its Python, dependencies and compiled parts inside
	@packaging/deb/build.sh dist

docs: $(STAMP)  ## reference pages generated from the code
	@$(PY) -m cofferdam.cli.main docs docs

lock:  ## make requirements.lock anew (needs uv)
	uv pip compile -q --universal --generate-hashes --no-strip-extras --no-emit-index-url --no-emit-find-links --no-header --all-extras -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
