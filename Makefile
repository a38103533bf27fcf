# Every target makes the environment .venv by itself, from a Python 3.11 to 3.13 and a package index.

PYTHON ?= python3
# `make bench` compares the commits BASE and HEAD and fails where a time grows by more than FACTOR and SECONDS.
BASE ?= HEAD~1
FACTOR ?= 1.1
SECONDS ?= 2e-3
# BENCH is a regular expression of the benchmarks to run, for example BENCH=bench_fit. asv takes the larger of two numbers
# for the worse and cannot compare negative ones, so a comparison leaves out rates and log-likelihoods.
bench-quick: BENCH ?= .
bench: BENCH ?= ^(?!.*(gflops|log_likelihood))

PEERS ?= onedal gmmx opencv hmmlearn stepmix

BIN := .venv/bin
# numba's cache does not see a change in another file than the kernel's own.
export NUMBA_CACHE_DIR := $(CURDIR)/.venv/numba-$(shell cat fastem/kernels/*.py | cksum | cut -d ' ' -f 1)
STAMP := .venv/.stamp
ASV := $(BIN)/python -m asv

.DEFAULT_GOAL := help
.PHONY: help env run test test-slow lint format bench bench-quick peers machine clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | awk -F ':.*## ' '{ printf "make %-12s %s\n", $$1, $$2 }'

env: $(STAMP) ## make the environment .venv

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "fastem needs Python 3.11 to 3.13 and $(PYTHON) is not; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Making the environment .venv (some minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: $(STAMP) ## fit two real data sets, print a summary, write the models and pictures to run/
	@$(BIN)/python -m fastem.demo

test: $(STAMP) ## run the tests, without the slow ones, in two processes
	@$(BIN)/python -m pytest -q -m "not slow" --numprocesses 2 --dist worksteal

test-slow: $(STAMP) ## run the slow tests alone
	@$(BIN)/python -m pytest -q -m slow

lint: $(STAMP) ## check style, format and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: $(STAMP) ## put the sources in the common format
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench-quick: machine ## run every benchmark once on the files as they are; results are shown, not kept
	@$(ASV) run --config benchmarks/asv.conf.json --python same --quick --show-stderr --bench '$(BENCH)'

bench: machine ## compare the commits BASE and HEAD
	@$(ASV) continuous --config benchmarks/asv.conf.json --factor $(FACTOR) --show-stderr --bench '$(BENCH)' \
		$(BASE) HEAD | $(BIN)/python -m benchmarks.regressions --absolute $(SECONDS)

peers: ## make an environment for each peer of `fastem bench`, in .venv-peers; PEERS="stepmix hmmlearn" names some
	@for peer in $(PEERS); do \
		echo "Making .venv-peers/$$peer"; \
		$(PYTHON) -m venv .venv-peers/$$peer && \
		.venv-peers/$$peer/bin/python -m pip install -qq --disable-pip-version-check \
			-r benchmarks/peers/requirements/$$peer.txt || exit 1; \
	done

# asv asks for the machine's description before the first run; this takes what it finds.
machine: $(STAMP)
	@$(ASV) machine --config benchmarks/asv.conf.json --yes > /dev/null

clean: ## remove everything that these targets made
	rm -rf .venv .venv-peers run build dist *.egg-info benchmarks/.asv .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
