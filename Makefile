# Two commands matter: `make demo` shows the whole lifecycle, `make test` proves it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo dev test quick lint format bench lock clean help

help:            ## list the targets
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(READY)   ## run the whole lifecycle on data/ and print a report
	@$(BIN)/genaiops demo

dev: $(READY)    ## open the Dagster UI (webserver, daemon, schedules, sensors) on the same state
	@$(BIN)/genaiops dev

test: $(READY)   ## all tests; what is only measured is in `make bench`
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not benchmark"

quick: $(READY)  ## the tests that take no more than a few seconds each
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not browser and not benchmark"

lint: $(READY)   ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(READY) ## rewrite with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## benchmarks, as ratios measured in one run
	$(BIN)/python -m pytest -m benchmark -s -p no:cacheprovider tests/benchmarks

lock: $(READY)   ## resolve requirements.lock anew (pins and hashes, no addresses)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-annotate \
	  --custom-compile-command "make lock" --extra dev --upgrade --output-file requirements.lock pyproject.toml

clean:           ## remove the environment; the state in .genaiops stays
	rm -rf $(VENV)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed; this is %d.%d. Try: make $(MAKECMDGOALS) PYTHON=python3.12" % v[:2])'
	@echo "Installing pinned dependencies into $(VENV) (once, one to three minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
