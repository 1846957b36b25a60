# Everything a newcomer types. Each target makes the virtual environment it needs (.venv) and says what it does.
# All paths are relative, so the folder may have spaces in its name; nothing needs root.
SHELL := /bin/sh
PYTHON ?= python3
PY := .venv/bin/python
export LITELLM_LOCAL_MODEL_COST_MAP := True

.PHONY: help demo demo-full real test lab check bench lock clean

help:
	@echo "make demo       servers, a small sweep of real tau2 tasks, two reports (simulated models); a minute"
	@echo "make demo-full  the same with all three strategies; about two minutes"
	@echo "make real       a real small model through a real vLLM on the CPU, from nothing to a report; 15 minutes"
	@echo "make test       all checks and tests"
	@echo "make lab        JupyterLab on the notebooks, in the workspace ./demo"
	@echo "make check      lint, types, import rules, notebook rules"
	@echo "make bench      what the harness itself costs, side by side with inspect's"
	@echo "make lock       resolve the two lock files anew"

demo: .venv/.runtime
	@echo "==> Demo: simulated servers, a small tau2 sweep, two reports in ./demo"
	@$(PY) -m tautools demo --workspace demo

demo-full: .venv/.runtime
	@echo "==> The whole demo: simulated servers, a tau2 sweep with all three strategies, two reports in ./demo"
	@$(PY) -m tautools demo --full --workspace demo

real: .venv/.runtime
	@sh examples/real_model/run.sh

test: check
	@echo "==> Tests (system parts that are missing are named at the end)"
	$(PY) -m pytest -n 2 --dist loadgroup $(PYTEST_ARGS)

lab: .venv/.runtime
	@echo "==> JupyterLab on the notebooks of the workspace ./demo (Ctrl-C twice ends it)"
	@$(PY) -m tautools init demo
	$(PY) -m jupyterlab --LabApp.news_url= --LabApp.default_url=/lab/tree/notebooks/00_session.ipynb --ServerApp.root_dir=demo

check: .venv/.dev
	@echo "==> Style, types, import rules, notebook rules"
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -c "from importlinter.cli import lint_imports_command as main; main()" --no-cache --no-logo
	$(PY) tests/support/notebook_rules.py notebooks
	$(PY) tests/support/house_rules.py

bench: .venv/.dev
	@echo "==> What the harness costs"
	$(PY) benchmarks/stream_cost.py
	$(PY) benchmarks/harness_cost.py
	$(PY) benchmarks/v1_cost.py

lock:
	$(PYTHON) -m pip install --quiet uv
	$(PYTHON) -m uv pip compile --quiet --universal --python-version 3.11 pyproject.toml -o requirements.lock --no-annotate --no-header --upgrade
	$(PYTHON) -m uv pip compile --quiet --universal --python-version 3.11 --group dev pyproject.toml -c requirements.lock -o requirements-dev.lock --no-annotate --no-header

clean:
	rm -rf .venv build dist

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, this is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Next: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 2; }
	@echo "==> Making a virtual environment in .venv"
	@$(PYTHON) -m venv .venv || { echo "Next: install the venv module (Debian: apt install python3-venv)."; rm -rf .venv; exit 2; }

.venv/.runtime: requirements.lock pyproject.toml | .venv/bin/python
	@echo "==> Installing the locked packages (about a minute)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.runtime
	@echo "==> Installing the locked development packages"
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-dev.lock
	@touch $@
