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

bench: $(STAMP)         ## what this machine can do, a JSON line each; X-rays where they are (DATA=folder)
	@$(BIN)/fednode bench swarm --clients 200 --rounds 10 --json 2>/dev/null
	@if [ -d "$(DATA)/chest_xray" ]; then $(BIN)/fednode bench images --data "$(DATA)" --json 2>/dev/null; \
	else echo "no X-rays in $(DATA): images are not timed (make bench DATA=folder)" >&2; fi

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
