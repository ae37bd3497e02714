# make quickstart   install, meta-train on the starter tasks, adapt to unseen ones, print the table
# make test         install, lint, run the tests, in WORKERS processes of one thread each
# make test-slow    the tests that take minutes
# make bench        speed, as ratios
# All paths are relative, so a path with a space in it does no harm.

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: quickstart test test-slow bench install lint format clean

install: $(STAMP)

# The stamp is written last: an interrupted installation starts anew the next time.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[embedded,generation,test,dev]"
	touch $(STAMP)

quickstart: $(STAMP)
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
	    recipes/meta_train.py recipes/configs/quickstart.yaml

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

bench: $(STAMP)
	$(BIN)/python recipes/benchmark.py

clean:
	rm -rf .venv runs
