# Needs make and a Python of 3.11 or newer; everything else comes from requirements/*.txt, pinned by hash.
#   make PYTHON=/path/to/python   picks the interpreter
#   make test WORKERS=1           sets how many processes run tests

SHELL := /bin/sh
.DEFAULT_GOAL := help

# The first interpreter that starts (a version manager's shim may not), is new enough and can make a venv.
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -gt 4 ] && n=4; echo $$n)

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
CODE := $(wildcard farthing tests tools bench)
VENDOR := farthing/web/static/vendor
INSTALL := $(BIN)/uv pip install --quiet --no-build-isolation --python
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url $(UPGRADE)

.PHONY: help setup setup-run web demo dashboard test check bench bench-compare docs docs-long site lock golden spark scale fuzz crash torture atheris mutate focus soak clean dist sbom audit

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: .venv/.dev web  ## build .venv with everything the tests need

setup-run: .venv/.run  ## build .venv with what farthing itself needs

web: $(VENDOR)/echarts.js  ## build what browsers need of others' work, from npm (needs Node, or takes it from PyPI)

demo: .venv/.run  ## show farthing at work on a made-up month
	-@$(MAKE) --no-print-directory web
	$(BIN)/farthing demo

dashboard: .venv/.run web  ## the dashboard on this machine's Claude Code transcripts (ARGS=--demo: on a made-up month)
	$(BIN)/farthing web $(ARGS)

# A test that hangs ends its worker and says where it stood, instead of keeping everybody waiting.
test: check  ## set up, check, and run the tests
	$(PYTEST) -n $(WORKERS) -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true --max-worker-restart=1

check: .venv/.dev web  ## lint, layout and types
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy $(wildcard farthing tests tools)

golden: .venv/.dev  ## rewrite the expected files, to be read in git diff
	$(PYTEST) --golden

docs: .venv/.dev  ## write the generated pages anew
	$(BIN)/python -m tools.docs

site: docs  ## the docs as a site, in site/: open site/index.html
	$(BIN)/python -m sphinx -q -W --keep-going -b html -c tools/site -d site/.trees . site

docs-long: .venv/.dev  ## run what the docs show, also what takes long
	DOCS=long $(PYTEST) tests/test_docs_run.py

spark: .venv/.dev  ## the long tests on Spark (Java 17 or newer)
	$(PYTEST) -m spark_long

scale: .venv/.dev  ## what a row costs on DuckDB and Spark, up to 100 million of them (makes 4 GB in .bench/)
	$(BIN)/python -m bench.scale 1000000 10000000 100000000

fuzz: .venv/.dev  ## the long random searches
	$(PYTEST) -m fuzz --hypothesis-profile=fuzz -n $(WORKERS)

crash: .venv/.dev  ## kill -9 at 200 moments of imports and compactions (CRASHES=, CRASH_SEED=)
	$(PYTEST) tests/crash -m "crash or not crash" -n $(WORKERS)

torture: .venv/.dev  ## 1,000 kills and every other fault, with a table of what they found (KILLS=, TORTURE=, TORTURE_SEED=)
	$(BIN)/python -m tests.torture.run -n $(WORKERS)

atheris: .venv/.dev  ## fuzzing led by coverage: each target for SECONDS (60), from tests/fuzz/corpus
	$(INSTALL) $(BIN)/python --require-hashes -r requirements/fuzz.txt
	$(BIN)/python -m tests.fuzz.guided all $(or $(SECONDS),60)

mutate: .venv/.dev  ## small changes of the core, one at a time, that its tests do not notice
	$(BIN)/python -m tools.mutate

focus: .venv/.dev  ## the official FOCUS validator on an export (Python 3.12; 515 MB in .venv-focus)
	$(BIN)/python tools/focus_validate.py

bench: .venv/.dev .venv-bench/.done  ## measure, with the rivals in .venv-bench
	$(BIN)/python bench/run.py

bench-compare: .venv/.dev  ## what became slower since a commit: BASE=COMMIT (instructions too, with valgrind)
	$(BIN)/python bench/compare.py $(BASE)

soak: .venv/.dev  ## the gateway under load for 20 minutes (MINUTES=, RATE= calls a second)
	$(BIN)/python bench/soak.py $(or $(MINUTES),20) $(or $(RATE),40)

dist: .venv/.dev web  ## wheel and sdist in dist/, built twice, and tried on each Python there is
	$(BIN)/python -m tools.dist

sbom: .venv/.run  ## what farthing is made of, as CycloneDX: dist/sbom.json
	mkdir -p dist
	$(BIN)/python -m tools.sbom > dist/sbom.json

audit: .venv/.build  ## ask PyPI for known faults of what is locked (needs the network)
	test -x .venv-audit/bin/python || $(PYTHON) -m venv --without-pip .venv-audit
	$(INSTALL) .venv-audit/bin/python --require-hashes -r requirements/audit.txt
	.venv-audit/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r requirements/run.txt \
		|| { echo "not audited, or faults found: see above. Without a network: make sbom, and scan dist/sbom.json elsewhere"; exit 1; }

lock: .venv/.run  ## make the lock files anew, keeping what still fits (UPGRADE=--upgrade: the newest)
	$(LOCK) --group build -o requirements/build.txt
	$(LOCK) pyproject.toml --extra aws --extra gateway -c requirements/build.txt -o requirements/run.txt
	$(LOCK) pyproject.toml --all-extras --group dev -c requirements/build.txt -c requirements/run.txt -o requirements/dev.txt
	$(LOCK) --group node -o requirements/node.txt
	$(LOCK) --group bench -o requirements/bench.txt
	$(LOCK) --group fuzz -o requirements/fuzz.txt
	$(LOCK) --group audit -o requirements/audit.txt

clean:  ## remove what was built here
	rm -rf $(VENDOR) tools/web/node_modules
	rm -rf .venv .venv-audit .venv-bench .venv-focus .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site spark-warehouse
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

# What farthing runs on is compiled at once: where Python may keep no bytecode, each start would take twice as long.
# Each stamp is newer than the files it was made from, so a changed lock installs again and nothing else does.
.venv/.build: requirements/build.txt
	@test -n "$(PYTHON)" || { echo "farthing needs Python 3.11 or newer with venv (Debian: apt-get install python3-venv)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt
	@touch $@

.venv/.run: .venv/.build requirements/run.txt pyproject.toml
	$(INSTALL) $(BIN)/python --compile-bytecode --require-hashes -r requirements/run.txt
	$(INSTALL) $(BIN)/python --no-deps --editable .
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m compileall -q -j 0 farthing
	@touch $@

.venv/.dev: .venv/.run requirements/dev.txt
	$(INSTALL) $(BIN)/python --require-hashes -r requirements/dev.txt
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'from farthing.cache import warm; warm()'
	@touch $@

# The charts and the font of the dashboard; Node comes from the Python package only where the machine has none.
$(VENDOR)/echarts.js: tools/web/package-lock.json tools/web/charts.js tools/web/build.py requirements/node.txt | .venv/.build
	$(BIN)/python tools/web/build.py --has-node || $(INSTALL) $(BIN)/python --require-hashes -r requirements/node.txt
	$(BIN)/python tools/web/build.py
	@touch $@

.venv-bench/.done: .venv/.build requirements/bench.txt
	test -x .venv-bench/bin/python || $(PYTHON) -m venv --without-pip .venv-bench
	$(INSTALL) .venv-bench/bin/python --require-hashes -r requirements/bench.txt
	@touch $@
