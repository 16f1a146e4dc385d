# Everything runs in .venv, which `make setup` makes; every other target does so by itself.

VENV := .venv
STAMP := $(VENV)/setup.stamp
PCEQUI := $(VENV)/bin/pcequi
PYTEST := $(VENV)/bin/python -m pytest
# A test runs on one thread: a process a core, at most four, for which any machine has the memory.
# What asks for more threads does not let them wait in circles, which takes the other's core.
TESTS := OMP_WAIT_POLICY=PASSIVE $(PYTEST) -n auto --maxprocesses 4 --dist worksteal

# The first Python that is new enough; the locked versions were made with 3.11.
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	$$python -c '$(USABLE)' 2>/dev/null && echo $$python && break; done)

.PHONY: help setup test test-slow test-faults fuzz audit test-oldest test-newest test-browser lint format check bench demo demo-quick docs clean distclean

help:
	@echo "make setup       make .venv with torch, PyG, Open3D and torch-cluster"
	@echo "make demo        train a classifier that rotation cannot fool (demo-quick: in short)"
	@echo "make test        the tests, with and without torch-cluster (test-slow: the long ones)"
	@echo "make test-faults kills processes, damages files, fills disks (fuzz: many broken files)"
	@echo "make audit       are bad, too old or unlocked versions installed?"
	@echo "make test-oldest the core of the tests with the oldest packages allowed"
	@echo "make test-newest the tests with the newest packages, by any Python: PYTHON=python3.13"
	@echo "make test-browser installs Chromium and Xvfb; opens a report and the window of view in them"
	@echo "make check       measure the equivariance of the default network"
	@echo "make bench       how fast is this machine?"
	@echo "make docs        the documentation, into build/docs"
	@echo "make lint        check style (format: repair it)"
	@echo "make clean       remove caches (distclean: .venv and its like as well)"

setup: $(STAMP)

# Optional parts that failed do not hold up the stamp; `make -B setup` tries them again.
$(STAMP): pyproject.toml constraints.txt $(wildcard tools/*.py)
	@test -n "$(PYTHON)" || { \
		echo "Python 3.11 or later with venv is needed (Debian: apt-get install python3-venv)"; \
		exit 1; }
	@PYTHONDONTWRITEBYTECODE=1 $(PYTHON) tools/setup_env.py
	@touch $@

test: $(STAMP)
	$(TESTS)
	@echo "Once more, without torch-cluster:"
	PCEQUI_NO_TORCH_CLUSTER=1 $(TESTS) -m "backend and not slow"

test-slow: $(STAMP)
	$(PYTEST) -m slow

test-faults: $(STAMP)
	$(PYTEST) -m faults tests/faults

# A quarter of an hour and more; the guided part takes 10 s for each kind of file.
fuzz: $(STAMP)
	$(VENV)/bin/python tools/fuzz_readers.py --total 200000
	@$(VENV)/bin/python tools/fuzz_guided.py --install
	$(VENV)/bin/python tools/fuzz_guided.py --seconds 10

audit: $(STAMP)
	@test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && \
		.venv-audit/bin/pip install -q --disable-pip-version-check pip-audit; } || \
		echo "pip-audit cannot be installed"
	$(VENV)/bin/python tools/audit.py

test-oldest: $(STAMP)
	$(VENV)/bin/python tools/oldest.py

test-newest:
	$(PYTHON) tools/newest.py

test-browser: $(STAMP)
	@$(PYTHON) tools/setup_browser.py
	$(PYTEST) -m browser tests/report
	$(PYTEST) tests/viz/test_window.py

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

check: $(STAMP)
	$(PCEQUI) check

bench: $(STAMP)
	$(PCEQUI) bench

demo: $(STAMP)
	$(PCEQUI) demo

demo-quick: $(STAMP)
	$(PCEQUI) demo --quick

docs: $(VENV)/docs.stamp
	$(VENV)/bin/python -m sphinx -W --keep-going -q -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

$(VENV)/docs.stamp: $(STAMP)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-build-isolation \
		-e ".[docs]" -c constraints.txt
	@touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .venv-audit .venv-fuzz .venv-oldest .venv-newest
