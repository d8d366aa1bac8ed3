# r1kit. `make run` runs the recipe, `make test` the tests; both set up .venv first, from nothing.
#
#   make run PROFILE=small ARGS="--mirror DIR --set zero.steps=4"
#   make test TESTS=tests/r1kit

SHELL       := bash
.SHELLFLAGS := -o pipefail -c

PYTHON  ?= $(shell command -v python3.11 || command -v python3)
PROFILE ?= tiny
ARGS    ?=
TESTS   ?= tests
BIN     := .venv/bin
READY   := .venv/ready

.PHONY: install run test check format clean hunt bench-parity bench-grpo bench-sampling bench-sft bench-growth \
  bench-checkpoint bench-verify bench-decontaminate bench-data bench-reward-model bench-ledger

install: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "r1kit needs Python 3.11; name it with make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "setting up .venv from requirements.lock: three to nine minutes, once"
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --progress-bar off --disable-pip-version-check --requirement requirements.lock | awk \
	  -v total=$$(grep -c == requirements.lock) \
	  '/^(Collecting|Processing) / {if (++n % 25 == 0 && n <= total) print "  " n " of " total " packages found"} \
	   /Downloading .*\.whl \(/ {if (++d % 50 == 0 || / \([0-9][0-9][0-9]+\.[0-9] MB\)/) print "  downloading: " d " so far"} \
	   /^Installing/ {print "  unpacking " total " packages, one to four minutes"} {fflush()}'
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: $(READY)
	@$(BIN)/r1 run --profile $(PROFILE) $(ARGS)

# One torch thread a process: two that share two cores with two threads each run many times slower.
test: check
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

check: $(READY)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@$(BIN)/pyright
	@$(BIN)/python -m tasks.doctor

format: $(READY)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# The rival comes into an environment of its own, in the user's cache folder; ARGS=--write renews the golden values.
bench-parity: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.parity $(ARGS)

# r1kit and its rivals turn about on the same work; ARGS="--rounds 5 --only tiny". Leave the machine alone meanwhile.
bench-grpo bench-sampling bench-sft: $(READY)
	@$(BIN)/python -m benchmarks.speed $(@:bench-%=%) $(ARGS)

# How a step grows with each size; draws docs/growth.svg.
bench-growth: $(READY)
	@$(BIN)/python -m benchmarks.growth $(ARGS)

# What saving costs, at two sizes: two minutes.
bench-checkpoint: $(READY)
	@$(BIN)/python -m benchmarks.saving

# Kills trainings at random instants and compares what they make; ARGS="--kills 200 --seed 3 --stages zero prefer".
hunt: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.hunt $(ARGS)

# The verifiers on the real data sets, about ten minutes; ARGS="--only speed" runs one part.
bench-verify: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.verify $(ARGS)

# Plants benchmark questions among training rows: what is found, and what is not. ARGS="--show 5" shows examples.
bench-decontaminate: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.decontaminate $(ARGS)

# Data through the gates, at 8,000 and 80,000 chains of 2,000 tokens: ten minutes; ARGS="--sizes 8000" is one.
bench-data: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.data $(ARGS)

# A harmlessness reward model on HH pairs against chance and length: twenty minutes; ARGS="--pairs 128" is shorter.
bench-reward-model: $(READY)
	@$(BIN)/python -m benchmarks.reward_model $(ARGS)

# The ledger at 1,000, 10,000 and 100,000 entries, in a folder and on S3: five minutes; ARGS="--sizes 1000 --s3-sizes".
bench-ledger: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.ledger $(ARGS)

# Everything that was made, the virtual environment too; the code and dvc.lock stay.
clean:
	rm -rf .venv .r1 data build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
