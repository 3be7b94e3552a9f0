# Two commands for a fresh machine: `make demo` and `make test`. Each sets up what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Directories change their time when a file comes or goes: the strict editable install links file by file.
SOURCES := $(shell find engine kernels jobs -type d -not -name __pycache__)

.PHONY: demo test lint types imports unit test-all chaos gpu wheel clean

$(STAMP): pyproject.toml constraints.txt $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --config-settings editable_mode=strict --editable '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/poolscore demo --dir demo-run

test: lint types imports unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy -p poolscore.kernels -p poolscore.engine -p poolscore.jobs
	$(BIN)/mypy benchmarks

imports: $(STAMP)
	$(BIN)/lint-imports

# Two files at a time: many tests wait for processes more than they compute.
unit: $(STAMP)
	$(BIN)/python -m pytest -m "not gpu and not slow and not chaos" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-all: $(STAMP)
	$(BIN)/python -m pytest -m "not gpu and not chaos"

# Jobs on real Ray are broken in every way we know. What is random is drawn by the seed:  make chaos SEED=1
SEED ?= $(shell date +%s)
chaos: $(STAMP)
	$(BIN)/python -m pytest tests/chaos --chaos-seed $(SEED)

# On a machine with a GPU: all parts, or PART="bits soak"; MINUTES=8.5 starts nothing that does not fit; results go to OUT,
# and the same command goes on there (benchmarks/NOTES.md, "On a GPU: what to run"). Where nothing can be fetched, the
# machine's own interpreter and a folder of wheels do:  make gpu PYTHON=python3 WHEELS=.whl
OUT ?= benchmarks/results
SITE ?= /tmp/poolscore-site
GPU := benchmarks/gpu.py --out $(OUT) $(addprefix --minutes ,$(MINUTES)) $(addprefix --part ,$(PART)) $(if $(AGAIN),--again)
INSTALL := -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target $(SITE)
gpu: $(if $(WHEELS),,$(STAMP))
ifdef WHEELS
	$(PYTHON) $(INSTALL) $(wildcard $(WHEELS)/*.whl)
	$(PYTHON) $(INSTALL) --no-build-isolation .
	PYTHONPATH=$(SITE) $(PYTHON) $(GPU)
else
	$(BIN)/python $(GPU)
endif

clean:
	rm -rf $(VENV) build dist demo-run
