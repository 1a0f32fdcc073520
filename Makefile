# Everything a developer types. `make setup` runs by itself where it is needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Two more than there are cores: many tests wait for other processes.
DATA    ?= ../shared/data
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 2)')

.PHONY: setup demo docs test torture check bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("fednode needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[torch,postgres,tensorboard,dev]'
	@touch $(STAMP)

demo: $(STAMP)          ## train a small network on MNIST across real processes
	@$(BIN)/fednode demo

docs: $(STAMP)          ## fill in what docs/reference takes from the code
	$(BIN)/python scripts/make_reference.py

check: $(STAMP)         ## lint, types and the house rules, in seconds
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest tests/house

test: $(STAMP)          ## lint, types and every test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

torture: $(STAMP)       ## the fault matrices in full, for hours; its report lies in build/torture.jsonl
	@mkdir -p build && rm -f build/torture.jsonl
	FEDNODE_TORTURE=full FEDNODE_TORTURE_REPORT=$(CURDIR)/build/torture.jsonl $(BIN)/pytest tests/torture --timeout 14400

BENCH := $(BIN)/fednode bench

bench: $(STAMP)         ## what this machine can do, a JSON line each: bench/README.md says what they mean
	@$(BENCH) round --clients 2 --mb 0.1 --rounds 20 --json
	@$(BENCH) round --clients 8 --mb 0.1 --rounds 20 --json
	@$(BENCH) round --clients 8 --mb 10 --rounds 10 --json
	@$(BENCH) round --clients 2 --mb 100 --rounds 5 --json
	@$(BENCH) round --clients 8 --mb 100 --rounds 5 --json
	@$(BENCH) round --clients 32 --mb 100 --rounds 1 --json
	@$(BENCH) aggregate --updates 10 --mb 100 --json
	@$(BENCH) start --clients 2 --json
	@$(BENCH) restart --clients 10 --outage 5 --repeats 3 --json
	@$(BENCH) idle --clients 1000 --json
	@$(BENCH) idle --clients 5000 --rounds 1 --json
	@$(BENCH) live --json
	@$(BENCH) swarm --clients 1000 --params 50000 --rounds 10 --json
	@$(BIN)/python bench/pages.py
	@if [ -d "$(DATA)/chest_xray" ]; then $(BENCH) images --data "$(DATA)" --json; \
	else echo "no X-rays in $(DATA): images are not timed (make bench DATA=folder)" >&2; fi

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
