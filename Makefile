# Set up, open and test the course. Needs Python 3.11 or newer (with pip and venv) and make; Windows: see README.md.
PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= auto
# torch's own index holds the builds without CUDA, which are far smaller; where it does not answer, pip takes PyPI's
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# passed on to JupyterLab, such as LAB_ARGS="--no-browser --port 9000"
LAB_ARGS ?=

PY  := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -q

.DELETE_ON_ERROR:
.PHONY: help setup lab test lint notebooks check matrix bench lock clean no-progress

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

# ---- set-up: one stamp for each step, so that a step is repeated only when what it was made from changes

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-torch: constraints.txt | $(PY)
	$(PIP) install --retries 1 --no-deps -c constraints.txt --extra-index-url $(TORCH_INDEX) torch
	@touch $@

$(VENV)/.stamp-lab: $(VENV)/.stamp-torch pyproject.toml
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-torch pyproject.toml
	$(PIP) install -c constraints.txt -e ".[dev]"
	@touch $@

setup: $(VENV)/.stamp-lab  ## create .venv and install what a reader needs

lab: setup  ## open the course in JupyterLab, at your own copy of the notebooks
	@$(PY) -m attnlib lab -- $(LAB_ARGS)

# ---- for those who work on the course: one thread, and never the reader's own progress

PROGRESS := $(abspath $(VENV))/progress
test notebooks matrix bench: export OMP_NUM_THREADS := 1
test notebooks matrix bench: export ATTNLIB_PROGRESS := $(PROGRESS)
# a waiting thread should sleep: one that spins starves the others on a busy machine
test notebooks matrix bench: export OMP_WAIT_POLICY := PASSIVE
test notebooks matrix bench: export GOMP_SPINCOUNT := 0

no-progress:
	@rm -rf "$(PROGRESS)"

# two passes; in the second one beartype holds every function to the shapes in its signature
test: $(VENV)/.stamp-dev no-progress  ## unit tests and every notebook, then the pass that checks every shape
	$(PY) -m pytest -n $(JOBS) --dist loadfile --nbval
	$(PY) -m pytest -n $(JOBS) --jaxtyping-packages=attnlib,beartype.beartype -m "not no_shape_hook" \
	  --ignore=tests/test_notebooks.py tests

lint: $(VENV)/.stamp-dev  ## style of the code and of the notebooks' sources
	$(PY) -m ruff check
	$(PY) -m ruff format --check

notebooks: $(VENV)/.stamp-dev no-progress  ## run the notebooks whose source changed and store their outputs
	$(PY) notebooks/build.py build

check: $(VENV)/.stamp-dev  ## are the stored notebooks current? (runs nothing)
	$(PY) notebooks/build.py check

matrix: $(VENV)/.stamp-dev no-progress  ## every notebook under three instruction sets, with 1 and 2 threads
	@failed=0; for run in "1 $(JOBS)" "2 0"; do set -- $$run; for cpu in "" \
	  "MKL_CBWR=COMPATIBLE ATEN_CPU_CAPABILITY=avx2" \
	  "ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2 ONEDNN_MAX_CPU_ISA=SSE41"; do \
	    name="$$1 thread(s), $${cpu:-this machine's own instruction set}"; echo "== $$name"; \
	    env $$cpu ATTNLIB_THREADS=$$1 $(PY) -m pytest -q -n $$2 --dist loadfile --nbval notebooks \
	      || { echo "FAILED: $$name"; failed=1; }; \
	  done; done; exit $$failed

bench: $(VENV)/.stamp-dev no-progress  ## how long each notebook takes
	$(PY) tests/benchmarks/notebooks.py

lock: $(VENV)/.stamp-dev  ## write the versions now in .venv to constraints.txt
	$(PY) -m pip freeze --exclude-editable --exclude pip --exclude setuptools --exclude wheel > constraints.new
	sed -n 's/^\([A-Za-z0-9._-]*==[^+ ]*\).*/\1/p' constraints.new | LC_ALL=C sort -f > constraints.txt
	@rm constraints.new

clean:  ## remove .venv; your copies of the notebooks in work/ stay
	rm -rf $(VENV)
