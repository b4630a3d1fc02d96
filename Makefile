# Every target makes .venv by itself: minutes the first time, nothing the second.
# Another interpreter: `make PYTHON=python3.12 test`. Files of a run go to outputs/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test lint sanitize bench nano clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## fill blanks, complete code, train a tiny GLM for a minute; writes outputs/demo/index.html
	@$(BIN)/glm demo

test: $(STAMP) ## the test suite: CPU, offline, under 6 minutes on two cores
	@$(BIN)/python -m pytest

lint: $(STAMP) ## ruff, mypy, import-linter, codespell
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/codespell

sanitize: $(STAMP) ## the tests of the compiled kernels under AddressSanitizer and UBSan (needs g++)
	@$(BIN)/python kernels/sanitize.py

bench: $(STAMP) ## the Trainer against transformers, every kernel against torch and the memory it reads
	@$(BIN)/glm bench train
	@$(BIN)/glm bench kernels

nano: $(STAMP) ## train the shipped models nano-text and nano-code again (90 and 140 minutes), write their cards
	@$(BIN)/glm train experiment=nano_text run_dir=outputs/nano_text
	@$(BIN)/python -m glm_core.nano.ship_text outputs/nano_text
	@$(BIN)/codegeex prepare installed-code --out outputs/nano_code_data
	@$(BIN)/codegeex train experiment=nano_code run_dir=outputs/nano_code
	@$(BIN)/python -m codegeex.nano.ship_code outputs/nano_code

clean: ## remove .venv and the caches, not outputs/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# The stamp comes last, so a failed or interrupted install is tried again.
$(STAMP): pyproject.toml constraints.txt hatch_build.py $(wildcard kernels/src/glm_kernels/cpu/native/*.[ch]*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: $(PYTHON) is older than Python 3.11 or missing; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
		exit 2; }
	@echo "Installing into $(VENV) (once; a few minutes, about 6 GB with the CUDA build of torch) ..."
	@rm -f $@
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || { \
		echo "error: $(PYTHON) -m venv failed; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --progress-bar off \
		-c constraints.txt -e ".[dev]" \
		| awk '/^ *(Collecting|Downloading|Building|Installing|Successfully)/ \
			{ print substr($$0, 1, 100); fflush() }'
	@$(BIN)/python -c 'import torch, glm_core, glm_kernels'
	@touch $@
