# Two commands on a fresh Debian 12 machine, as root: `make demo` and `make test`.
# Everything else here is for people who work on Farrier itself.

SHELL := /bin/bash
.DEFAULT_GOAL := help
export FARRIER_TARGET = $(firstword $(MAKECMDGOALS))
BIN := .venv/bin

.PHONY: help bootstrap demo test test-full unit lint docs bench down clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

bootstrap: ## what every other target needs: Debian packages, uv, .venv (root)
	@scripts/bootstrap --lab --tools

demo: ## hosts from nothing to streamed tokens, on this machine (root)
	@scripts/bootstrap --lab
	@$(BIN)/python -m farrier.demo --bootstrap-seconds "$$(cat build/bootstrap/seconds)" $(ARGS)

test: ## lint, types, unit tests and one real path through every feature (root)
	@scripts/run-phases test

test-full: ## matrices, soaks and builds; PART=name for one part, without it: which parts exist
	@scripts/run-phases full $(PART)

unit: ## the tests that need no host and no root
	@scripts/bootstrap --tools
	@$(BIN)/pytest tests/unit tests/agent $(ARGS)

lint: ## ruff and mypy
	@scripts/run-phases lint

docs: ## the pages that are made from the code
	@scripts/bootstrap
	@$(BIN)/python -m farrier.pages
	@$(BIN)/python -m farrier.preflight.page
	@$(BIN)/python -m farrier.metrics_page
	@$(BIN)/python -m farrier.verdicts
	@$(BIN)/python -m farrier.engines_page
	@$(BIN)/python -m farrier.fidelity_page

bench: ## PART=converge|nvml|status|withdraw|rollout|agent|drain|check|gate|gateway|vllm or all of them, into docs/benchmarks.md (root)
	@scripts/bootstrap --lab
	@$(BIN)/python -m tests.bench $(if $(PART),--part $(PART)) $(ARGS)

down: ## take every lab of this machine down (root)
	@scripts/bootstrap --lab
	@for lab in $$($(BIN)/python -c 'from farrier.lab.definitions import LABS; print(*LABS)'); do \
		$(BIN)/farrier lab down --name $$lab || exit; \
	done

clean: ## remove what can be made again: .venv, build outputs and caches (labs stay: make down)
	@rm -rf .venv .venv-tools build dist agent/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
