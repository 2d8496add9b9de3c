# Everything runs in .venv, which is built from requirements.lock. Needs Python 3.11 to 3.13, and nothing else.
PYTHON ?= python3
BIN := .venv/bin

export RAY_AUTH_MODE ?= disabled
export RAY_ENABLE_UV_RUN_RUNTIME_ENV := 0
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help demo test test-long fuzz test-faults soak test-whole test-providers test-judge test-autoscaling bench bench-wrapped bench-ingestion bench-backlog bench-comparing lint unit lock audit sbom clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

.venv/.built: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	  || { echo "cartoray needs Python 3.11 to 3.13; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep -oE '^uv==[^ ]+' requirements.lock)"
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

demo: .venv/.built  ## a whole sync: Kafka, Neo4j and a simulated AWS on this machine
	@bash tools/demo.sh

test: lint unit  ## what CI runs

lint: .venv/.built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: .venv/.built
	$(BIN)/pytest -n 2

INPUTS ?= 1000000
SEED ?=
FIRST ?= 0

fuzz: .venv/.built  ## damaged and hostile messages, a million by default (INPUTS, SEED, FIRST): half an hour
	PYTHONPATH=tests $(BIN)/python tests/fuzz/fuzz_run.py --inputs $(INPUTS) --first $(FIRST) $(if $(SEED),--seed $(SEED))

test-long: .venv/.built  ## secrets, the rights in Kafka, what kills its process, a few faults: minutes, not part of `make test`
	$(BIN)/pytest -m long

test-whole: .venv/.built  ## all AWS modules, as a command and as jobs, against stock: minutes, not part of `make test`
	$(BIN)/pytest tests/whole -s

test-providers: .venv/.built  ## GitHub, Kubernetes and Okta, against stock and stand-ins of their APIs: minutes
	$(BIN)/pytest tests/providers -s

# The tests of the Cartography that requirements.lock pins: they are in its source distribution, not in its wheel.
.judge/.had: .venv/.built
	mkdir -p .judge
	$(BIN)/pip download --quiet --disable-pip-version-check --no-binary cartography --no-deps --dest .judge \
	  "$$(grep -oE '^cartography==[^ ]+' requirements.lock)"
	tar xzf .judge/cartography-*.tar.gz -C .judge --strip-components=1 --wildcards '*/tests'
	$(BIN)/uv pip install --quiet --target .judge/plugins --no-deps pytest-mock pytest-asyncio
	@touch $@

FAULTS ?= 200

test-faults: .venv/.built  ## whole syncs under at least 200 faults: hours; SEED=… runs a plan again, FAULTS=… is how many
	PYTHONPATH=tests $(BIN)/python -W ignore -m faults --faults $(FAULTS) $(if $(SEED),--seed $(SEED))

MINUTES ?= 30

soak: .venv/.built  ## syncs over and over for half an hour (MINUTES=…), and whether anything grows
	PYTHONPATH=tests $(BIN)/python -W ignore -m faults.soak --minutes $(MINUTES)

test-judge: .judge/.had  ## Cartography's own integration tests, against stock and through us: long
	CARTOGRAPHY_SOURCES=.judge $(BIN)/pytest tests/judge -s

test-autoscaling: .venv/.built  ## Ray adds nodes for the pools and removes them: ends every Ray of this machine
	$(BIN)/pytest tests/autoscaling

bench: .venv/.built  ## whole syncs of many accounts, against stock Cartography: an hour
	$(BIN)/python -W ignore -m bench.whole --chart docs/whole-syncs.svg

bench-wrapped: .venv/.built  ## the same modules wrapped and native, against stock: minutes
	$(BIN)/python -W ignore -m bench.wrapped

bench-ingestion: .venv/.built  ## rows a second into Neo4j, against stock Cartography: an hour
	$(BIN)/python -W ignore -m bench.ingestion

bench-backlog: .venv/.built  ## a million rows wait in Kafka, and are in the graph then: half an hour
	$(BIN)/python -W ignore -m bench.backlog

bench-comparing: .venv/.built  ## ways to find in Neo4j what did not change: minutes
	$(BIN)/python -W ignore -m bench.comparing

lock:  ## take the newest versions that pyproject.toml allows into requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra local --group dev --universal --generate-hashes \
	  --no-emit-index-url --no-header -q -U -o requirements.lock

audit: .venv/.built  ## known vulnerabilities of what requirements.lock pins; fails where nobody can be asked
	$(BIN)/uvx --from 'pip-audit==2.10.1' pip-audit --strict --disable-pip --require-hashes -r requirements.lock

sbom: .venv/.built  ## what it is made of, packages and jars, as CycloneDX JSON: cartoray.cdx.json
	$(BIN)/python tools/sbom.py > cartoray.cdx.json

clean:
	rm -rf .venv
