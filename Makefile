# Everything starts here: `make` lists the targets. Needs Python 3.11 or newer with pip; nothing is installed
# outside .venv, except the Debian packages that `make test` and `make bench` compare with.

PYTHON ?= python3
BIN := .venv/bin
PROTOS := $(shell find federation gateway pki -name '*.proto')
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header $(if $(UPGRADE),--upgrade)
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python

export UV_PYTHON_DOWNLOADS := never
export PATH := $(PATH):/usr/sbin:/sbin
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help setup setup-dev generate demo check test bench wheel lock clean system-packages

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.runtime generate ## make .venv with what runs the product, from the lock

setup-dev: setup .venv/.dev ## the same, with what tests it

generate: .venv/.project ## make the protobuf modules that are out of date
	@$(BIN)/python tools/generate.py --check 2>/dev/null \
		|| { rm .venv/.project; $(MAKE) --no-print-directory .venv/.project; }

demo: setup $(if $(findstring --vault,$(ARGS)),.venv/.vault) ## three clusters, and a tour; ARGS=--vault: root in OpenBao
	@$(BIN)/federation demo $(ARGS)

check: setup-dev ## format, lint, types, import rules, unit tests
	$(BIN)/python tools/generate.py --check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not live" --numprocesses logical --dist worksteal

test: system-packages check ## check, and the tests that start real processes (Debian packages: when root)
	$(BIN)/pytest -m live

bench: setup-dev system-packages ## measure against the peers; ONLY=name for one
	$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY)) $(ARGS)

wheel: .venv/.uv ## build dist/federation-VERSION-py3-none-any.whl, to install elsewhere
	@rm -rf dist
	@$(BIN)/uv build --quiet --wheel --python $(BIN)/python --out-dir dist \
		--require-hashes --build-constraints requirements/build.lock
	@ls dist/*.whl

lock: .venv/.uv ## write requirements/*.lock from pyproject.toml; UPGRADE=1 for the newest versions
	$(COMPILE) --extra envoy pyproject.toml --output-file requirements/runtime.lock
	$(COMPILE) --extra vault --constraints requirements/runtime.lock pyproject.toml \
		--output-file requirements/vault.lock
	$(COMPILE) --group dev --constraints requirements/runtime.lock --output-file requirements/dev.lock
	$(BIN)/python tools/build_requirements.py | $(COMPILE) - --output-file requirements/build.lock
	echo uv | $(COMPILE) - --output-file requirements/bootstrap.lock

clean: ## remove .venv and everything generated
	rm -rf .venv gateway/pb .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find federation gateway pki -name '*_pb2.py' -delete -o -name '*_pb2.pyi' -delete
	find federation gateway pki tests tools bench -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

system-packages:
	@tools/system-packages

.venv/.uv: requirements/bootstrap.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is missing or older than 3.11; name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null \
		|| { echo "$(PYTHON) has no pip; install it (Debian: apt-get install python3-pip)" >&2; exit 1; }
	@echo "making .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip .venv
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check \
		--require-hashes --requirement requirements/bootstrap.lock
	@touch $@

.venv/.runtime: .venv/.uv requirements/runtime.lock
	@echo "installing requirements/runtime.lock"
	@$(INSTALL) --compile-bytecode --require-hashes --requirement requirements/runtime.lock
	@touch $@

.venv/.vault: .venv/.runtime requirements/vault.lock
	@echo "installing requirements/vault.lock"
	@$(INSTALL) --require-hashes --requirement requirements/vault.lock
	@touch $@

.venv/.dev: .venv/.uv requirements/dev.lock
	@echo "installing requirements/dev.lock"
	@$(INSTALL) --require-hashes --requirement requirements/dev.lock
	@touch $@

.venv/.project: .venv/.uv pyproject.toml hatch_build.py tools/generate.py requirements/build.lock $(PROTOS)
	@echo "building the protobuf modules"
	@$(INSTALL) --no-deps --require-build-hashes --build-constraints requirements/build.lock --editable .
	@$(BIN)/python -m compileall -q federation gateway pki
	@touch $@
