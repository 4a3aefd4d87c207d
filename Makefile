# Two commands matter: `make demo` and `make test`. Each does the set-up that is still missing; a second run is quick.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

PY := .venv/bin/python
STATIC := bridge/web/static
PAGE_SOURCES := $(shell find page -type f -not -path 'page/node_modules/*' -not -path 'page/dev/*' \
                  -not -path 'page/test/*' -not -path 'page/dist/*' 2>/dev/null) $(wildcard bridge/text/page.*.ftl)
SYNAPSE := import asyncio, pathlib; from bridge.demo.synapse import ensure_synapse; \
           asyncio.run(ensure_synapse(pathlib.Path(".synapse-venv"), print))
ARGS ?=

.PHONY: help
help: ## Say what each command does
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10 | sed 's/^/  make /'

.PHONY: demo
demo: .venv/.installed $(STATIC)/.built ## A whole stage on this machine: ARGS="--headless --json FILE --dir DIR"
	@tools/prerequisites.sh packages demo
	@exec $(PY) -m bridge demo $(ARGS)

.PHONY: test
test: check page/node_modules/.installed $(STATIC)/.built ## Check, then test page and bridge, with the real thing
	@tools/prerequisites.sh packages test
	@echo "Testing the page …"
	@cd page && npm test --silent
	@$(PY) -c '$(SYNAPSE)'
	@echo "Testing the bridge …"
	@exec $(PY) -m pytest -n 2 --dist loadfile $(ARGS)

.PHONY: interop
interop: .venv/.installed ## Against servers that are not Debian's packages: LiveKit's, built by Go (minutes the first time)
	@command -v go >/dev/null || { echo "Go is missing: apt-get install golang, 1.24 or later"; exit 1; }
	@GOBIN=$(CURDIR)/.livekit go install github.com/livekit/livekit-server/cmd/server@v1.9.12
	@EYVAN_LIVEKIT_SERVER=$(CURDIR)/.livekit/server $(PY) -m pytest tests/interop $(ARGS)

.PHONY: check
check: .venv/.installed ## Style, types, import rules, generated files
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --quiet . || { echo "Not formatted; run: make format"; exit 1; }
	@$(PY) -m mypy
	@.venv/bin/lint-imports --no-cache
	@tools/generate.sh --check

.PHONY: format
format: .venv/.installed ## Format the Python files
	@$(PY) -m ruff check --fix --quiet . || true
	@$(PY) -m ruff format .

.PHONY: generate
generate: .venv/.installed ## Write the generated files again
	@tools/generate.sh

.PHONY: page
page: $(STATIC)/.built ## Build the page, where its sources changed

.PHONY: bench
bench: .venv/.installed ## Measure beside peers, at most 20 minutes; ARGS="--quick": at most 3
	@tools/prerequisites.sh packages bench
	@exec $(PY) -m bench $(ARGS)

.PHONY: fuzz
fuzz: .venv/.installed ## A million changed captures for each protocol (20 minutes and more); then junk at a live worker
	@$(PY) -c 'import atheris' 2>/dev/null || $(PY) -m pip install -q --disable-pip-version-check -e '.[fuzz]' \
	  || echo "Without atheris: changes are made blindly"
	@exec $(PY) -m tests.fuzz $(ARGS)

.PHONY: clean
clean: ## Remove what make made, and the demo's directory
	rm -rf .venv .synapse-venv .demo .livekit page/node_modules $(STATIC) .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/.installed: pyproject.toml bridge/media/fanout.c tools/build_fanout.py
	@tools/prerequisites.sh cc
	@python=$$(tools/prerequisites.sh python); \
	if ! $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "Making .venv with $$($$python --version) …"; $$python -m venv --clear .venv; fi
	@echo "Installing the Python packages (about a minute the first time) …"
	@$(PY) -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

page/node_modules/.installed: page/package.json page/package-lock.json
	@tools/prerequisites.sh node
	@echo "Installing the page's packages …"
	@cd page && npm ci --silent --no-audit --no-fund
	@touch $@

$(STATIC)/.built: page/node_modules/.installed $(PAGE_SOURCES)
	@echo "Building the page …"
	@cd page && npm run build --silent -- --logLevel error
	@touch $@
