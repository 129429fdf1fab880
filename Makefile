.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread a process: results are then the same on any number of cores, and two processes share two cores well.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Tests start hundreds of Pythons: what one of them compiled is kept for the next, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

# A test file each at a time: a file's fixtures (a trained model, a server) are made once. Three processes on two cores: a
# good part of the time is waiting for servers, processes and pods. Files come in the order of tests/conftest.py.
PARALLEL ?= --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo test test-fast lint lint-style crds cluster-tools vllm-environment docs pictures references sbom format clean

help:  ## Show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --constraint constraints.txt --editable '.[operator,trainer,ui]'
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --constraint constraints.txt --editable '.[operator,trainer,dev]'
	@touch $@

setup: $(VENV)/.dev  ## Create .venv with everything that the demo, the tests and the checks need

demo: $(VENV)/.installed  ## Run the whole loop on this machine: three iterations of real self-evolution, then the report
	$(BIN)/selfevo run examples/arithmetic.yaml
	$(BIN)/selfevo report examples/arithmetic.yaml -o selfevo-report.html

test: setup lint-style  ## Run every test, the type checker among them
	./tests/install-debian-packages
	$(BIN)/pytest $(PARALLEL)

test-fast: setup  ## Run the fast tests (under 90 seconds)
	$(BIN)/pytest $(PARALLEL) -m "not slow"

lint: lint-style  ## Formatting, ruff, the type checker, the import rules, YAML
	$(BIN)/mypy

lint-style: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/yamllint .

crds: setup  ## Write crds/ anew from the contract's models
	$(BIN)/python -m selfevo_contract.crd
	cp crds/selfevo.dev_selfevolutionruns.yaml charts/selfevo/files/selfevolutionruns.yaml

cluster-tools: setup  ## Build the control plane that tests use into the cache (make test does it by itself)
	PYTHONPATH=tests $(BIN)/python -m harness.cluster.tools

vllm-environment: setup  ## Make the Python with vLLM's CPU build that tests use, into the cache (make test does it by itself)
	PYTHONPATH=tests $(BIN)/python -m harness.vllm

references: setup  ## Write anew what pages take from the code: fields of a manifest, a step's states, GPU memory, the chart's values
	$(BIN)/python tools/manifest_reference.py
	$(BIN)/python tools/state_reference.py
	$(BIN)/python tools/gpu_sizing.py
	$(BIN)/python tools/chart_values.py

docs: setup  ## Build the documentation site into build/site (python -m http.server -d build/site shows it)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What the pictures show is the runs of docs/tutorial.md, in this checkout or in WALKED.
WALKED ?= .
pictures: setup  ## Write docs/images anew from the runs of the tutorial
	$(BIN)/python tools/docs_pictures.py $(WALKED)

# `trainer` too where 10 GB more may be fetched.
SBOM_TARGETS ?= operator trainer-cpu
sbom: setup  ## List the Python packages of the images (CycloneDX) into build/sbom
	rm -rf build/sbom && mkdir -p build/sbom
	$(BIN)/uv venv --quiet build/sbom/tools
	$(BIN)/uv pip install --quiet --python build/sbom/tools/bin/python --constraint constraints.txt cyclonedx-bom
	for target in $(SBOM_TARGETS); do \
	  DRAFT=1 PYTHON=$(BIN)/python UV=$(CURDIR)/$(BIN)/uv CYCLONEDX=build/sbom/tools/bin/cyclonedx-py TORCH_BACKEND= \
	    tools/image-environment $$target build/sbom/$$target && mv build/sbom/$$target/sbom.cdx.json build/sbom/$$target.cdx.json || exit 1; \
	done
	rm -rf $(addprefix build/sbom/,$(SBOM_TARGETS) tools)

format: setup  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Remove what the targets made (the environment and the demo's outputs)
	rm -rf $(VENV) .selfevo selfevo-report.html build/site build/sbom
