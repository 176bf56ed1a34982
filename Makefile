# Every target sets itself up from nothing: it makes .venv and installs what it needs, once.
# A working torch in another environment can be used as well: make test PYTHON=/path/to/python

VENV := .venv
PYTHON ?= $(VENV)/bin/python
BASE_PYTHON ?= python3
STAMP := $(VENV)/.installed
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

.PHONY: demo test lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   distil two teachers into a small student on this machine, and show what changed"
	@echo "make test   the whole test suite"
	@echo "make lint   ruff and mypy --strict"
	@echo "make clean  remove .venv and caches"

# A torch that works is kept; only a missing one is installed, by its exact version.
$(STAMP): pyproject.toml constraints.txt
	@if [ ! -x $(VENV)/bin/python ]; then $(BASE_PYTHON) -m venv $(VENV); fi
	@echo "setting up $(VENV): about 200 MB for PyTorch (CPU build, larger where only CUDA builds are found), 150 MB for the rest"
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	@$(VENV)/bin/python -c "import torch" 2>/dev/null || $(VENV)/bin/python -m pip install --quiet "torch==$(TORCH)"
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: $(STAMP)
	@$(PYTHON) -m distillkit demo

test: $(STAMP)
	@$(PYTHON) -m pytest

lint: $(STAMP)
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
