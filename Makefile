# `make` alone lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade
WORKERS := 4
QUICK := -m "not slow and not processes and not kube and not e2e"
export PYTHONUTF8 := 1

.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

setup: .venv/.installed ## make .venv and install DWCP into it
setup-dev: .venv/.installed-dev ## as setup, with the tools that the tests need

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "DWCP needs Python 3.11 or newer: make PYTHON=python3.12 setup")'
	@$(PYTHON) -m venv .venv || { echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }

.venv/.installed: .venv/bin/python requirements.txt requirements-build.txt pyproject.toml
	@echo "installing DWCP into .venv"
	@$(PIP) install --require-hashes -r requirements.txt -r requirements-build.txt
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed requirements-dev.txt
	@echo "installing the test tools into .venv"
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

lock: .venv/bin/python ## resolve the locked requirements anew
	@$(PIP) install uv
	@$(LOCK) pyproject.toml -o requirements.txt
	@$(LOCK) pyproject.toml --group dev -o requirements-dev.txt
	@$(LOCK) --group build -o requirements-build.txt

demo: setup ## four replicas; one is killed, one lies; nothing is lost (no root, no network)
	@$(BIN)/dwcp demo --file examples/quickstart.yaml

kube-demo: setup ## the same on real Kubernetes, on this machine, as root (Debian)
	@PYTHONPATH=tests $(BIN)/python -m kube.demo

kube-down: setup ## remove all that kube-demo has started
	@PYTHONPATH=tests $(BIN)/python -m kube.demo down

lint: setup-dev ## ruff and mypy --strict
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted: run  $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

check: lint ## the quick part of the tests, under 90 s
	@$(BIN)/pytest -q -n $(WORKERS) $(QUICK)

test: lint ## all tests (what CI runs); those on real Kubernetes need root
	@$(BIN)/pytest -q -n $(WORKERS) $(QUICK)
	@$(BIN)/pytest -q -n auto --durations=15 -m "slow and not processes and not kube and not e2e"
	@$(BIN)/pytest -q --durations=15 -m "(processes or kube) and not e2e"

e2e-all: setup-dev ## every test on real Kubernetes, as root, and longer ones on processes; writes docs/reliability.md
	@DWCP_RELIABILITY=write PYTHONPATH=tests $(BIN)/pytest -q --durations=15 -m "kube or e2e"

long: lint ## larger counts: mutated frames, document histories, new lives (over an hour)
	@PYTHONPATH=tests $(BIN)/python -m replica.fuzz --frames 100000
	@DWCP_FUZZ_FRAMES=100000 $(BIN)/pytest -q --timeout 36000 tests/client/gateway/test_rpc.py tests/client/gateway/test_server.py -k 'mutated or never'
	@DWCP_CRDT_EXAMPLES=10000 $(BIN)/pytest -q --timeout 36000 tests/client/crdt
	@$(BIN)/dwcp sim campaign --seconds 1500
	@$(BIN)/dwcp sim explore --long
	@DWCP_SIM_DIRECTED=100 $(BIN)/pytest -q --timeout 36000 tests/replica/sim/test_directed.py

sim: setup ## a minute of new simulated lives
	@$(BIN)/dwcp sim campaign --seconds 60

bench: setup-dev ## DWCP beside etcd and CometBFT, about ten minutes; writes docs/performance.md
	@PYTHONPATH=tests:benchmarks $(BIN)/python -m compare --write docs

generate: setup-dev ## write generated files (CRDs, reference pages, traces, latency) anew
	@$(BIN)/python -m dwcp_operator.crds > crds/dwcpclusters.yaml
	@cp crds/dwcpclusters.yaml charts/dwcp-crds/files/dwcpclusters.yaml
	@$(BIN)/python -m dwcp_operator.crds backups > crds/dwcpbackups.yaml
	@cp crds/dwcpbackups.yaml charts/dwcp-crds/files/dwcpbackups.yaml
	@$(BIN)/python -m dwcp_operator.reference backups > docs/reference/dwcpbackup.md
	@$(BIN)/python -m dwcp_operator.chart > charts/dwcp-cluster/values.schema.json
	@$(BIN)/python -m dwcp_operator.reference > docs/reference/dwcpcluster.md
	@$(BIN)/python -m grpc_tools.protoc -I client --python_out=client --pyi_out=client client/dwcp/gateway/proto/*.proto
	@$(BIN)/pytest -q tests/replica/core/test_traces.py --rewrite
	@$(BIN)/dwcp sim latency --write docs

.PHONY: help setup setup-dev lock demo kube-demo kube-down lint check test e2e-all long sim generate
