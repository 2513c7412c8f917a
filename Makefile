# Two commands on a fresh machine: `make demo`, `make test`. `make help` lists the others.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
HOME_DIR := $(if $(RETRAIN_HOME),$(RETRAIN_HOME),.retrain)
PORT ?= 3000
STAMP := $(VENV)/.installed

.PHONY: help install demo dev test image test-k8s lint lock schema clean

help:  ## This list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

install: $(STAMP)  ## Create .venv from requirements.lock (hashes checked); quick when nothing changed

$(STAMP): requirements.lock pyproject.toml hatch_build.py retrain_assets/drift/_kernels.c
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "Python 3.11, 3.12 or 3.13 is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "Python has no venv module here. On Debian: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/uv || { awk '/^uv==/{on=1} on{print; if (!/\\$$/) exit}' requirements.lock > $(VENV)/uv.lock \
	  && $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.lock; }
	@echo "Installing the packages of requirements.lock (about a minute the first time) ..."
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync -q --compile-bytecode --require-hashes requirements.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --no-deps -e .
	@$(BIN)/python -c 'import lightgbm' 2>/dev/null \
	  || { echo "LightGBM needs the OpenMP runtime. On Debian: apt-get install libgomp1"; exit 1; }
	@touch $(STAMP)

demo: $(STAMP) $(HOME_DIR)/dagster/dagster.yaml  ## One model's life on real flights, in two minutes
	@RETRAIN_HOME=$(HOME_DIR) $(BIN)/python -m retrain_assets.examples.demo

dev: $(STAMP) $(HOME_DIR)/dagster/dagster.yaml  ## The Dagster UI with sensors and schedules on: http://127.0.0.1:3000
	@RETRAIN_HOME=$(abspath $(HOME_DIR)) DAGSTER_HOME=$(abspath $(HOME_DIR)/dagster) \
	  RETRAIN_DAGSTER_URL=$${RETRAIN_DAGSTER_URL:-http://127.0.0.1:$(PORT)} \
	  $(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p $(PORT)

test: $(STAMP)  ## All tests
	@$(BIN)/pytest -n 2 --dist loadfile

image: $(STAMP)  ## The image of the cluster tests, where they look for it (as root, on Debian)
	@cd tests && ../$(BIN)/python -c 'from k8s.cluster import build_image; print(build_image())'

# On one cluster beside each other: what clusters do to runs, and the deployment with its fleet.
K8S_TESTS ?= tests/k8s
test-k8s: $(STAMP)  ## Tests on a real cluster: ../shared/kube, or KUBECONFIG and RETRAIN_K8S_HOST
	@$(BIN)/pytest -n 2 --dist loadfile -m k8s --durations=12 $(K8S_TESTS)

lint: $(STAMP)  ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

lock: ## Resolve the newest versions that pyproject.toml allows; requirements-runtime.lock is the image's part
	@$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header -q --upgrade -o requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --extra k8s --extra postgres --extra s3 --extra examples \
	  --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q \
	  --constraints requirements.lock -o requirements-runtime.lock

schema: $(STAMP)  ## Write model_specs/schema.json and the field reference again
	@$(BIN)/python -m retrain_assets.spec.schema

clean:  ## Remove everything that demo and dev have made
	@rm -rf $(HOME_DIR)

$(HOME_DIR)/dagster/dagster.yaml: dagster.yaml
	@mkdir -p $(@D)
	@cp dagster.yaml $@
