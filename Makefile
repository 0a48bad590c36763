# Two commands on a fresh machine: `make train` and `make test`. Both set up .venv by themselves, once.

PYTHON ?= python3
BIN := .venv/bin
# Tests come from many small processes; one thread each keeps them from fighting over the cores.
WORKERS ?= 2

.PHONY: train test coverage check check-rules docs format bench soak clean

train: .venv/ready
	@run=$$($(BIN)/nnrun train configs/iris.yaml) && echo "$$run" && $(BIN)/nnrun eval --checkpoint "$$run"

test: check
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not soak"

# Watching every line makes the suite a third slower, so it is asked for by itself.
coverage: .venv/ready
	$(BIN)/coverage erase
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not soak" --cov --cov-report=term:skip-covered

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# What the rules of `nnrun check` find in a gallery of faulty experiments, and say wrongly of sound ones.
check-rules: .venv/ready
	$(BIN)/python -m tests.check.gallery

# The documentation as a site; its pages are run. The suite builds it too, and whatever is not as a page says is an error in both.
docs: .venv/ready
	$(BIN)/python -m docs.make

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Ten minutes; `make bench WHAT=--full` has the slow peers too, and Ludwig once `make bench/.venv-ludwig/ready` has been made.
bench: bench/.venv/ready
	bench/.venv/bin/python -m bench $(WHAT)
	bench/.venv/bin/python -m bench.table --write

soak: .venv/ready
	$(BIN)/pytest -m soak

clean:
	rm -rf .venv bench/.venv bench/.venv-ludwig

# The pinned set; installed again only when it or the metadata changes.
.venv/ready: constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# The peers of the benchmarks, beside nnrun on the same torch; the program's own environment stays without them.
bench/.venv/ready: bench/requirements.txt constraints.txt pyproject.toml
	test -x bench/.venv/bin/python || $(PYTHON) -m venv bench/.venv
	bench/.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r bench/requirements.txt -e '.[sweep]'
	touch $@

LUDWIG := bench/.venv-ludwig
$(LUDWIG)/ready: bench/requirements-ludwig.txt
	test -x $(LUDWIG)/bin/python || $(PYTHON) -m venv $(LUDWIG)
	$(LUDWIG)/bin/python -m pip install --quiet --disable-pip-version-check -r bench/requirements-ludwig.txt
	$(LUDWIG)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation ludwig==0.11.0 torchaudio==2.11.0
	rm -f $(LUDWIG)/lib/*/site-packages/torchaudio/lib/*.so
	touch $@
