# make bench   install, run the quick grid on the embedded digits, print the results table;
#              PROFILE= and SEEDS= are what params.yaml says, for `make` and `dvc repro` alike
# make test    install, run the tests
# make slow    install, run the tests that take more than a few seconds each
# make tables  regenerate results/tables and the README's numbers from the saved runs: no training, no timing
# make lint    ruff and mypy
# make reference  regenerate docs/reference.md from the docstrings
# make package  build sdist and wheel, install the wheel elsewhere and use it
# make sanitize  the engine's tests under AddressSanitizer and UndefinedBehaviorSanitizer, on every kernel set
# make races   the thread pool under ThreadSanitizer
# make fuzz    a minute of coverage-guided fuzzing of everything that reads a file (.ci/fuzz SECONDS for longer)
# make neon    the native kernels for 64-bit ARM, under an emulator

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PROFILE ?= $(shell sed -n 's/^profile: *\([^ ]*\).*/\1/p' params.yaml)
SEEDS   ?= $(shell sed -n 's/^seeds: *\([^ ]*\).*/\1/p' params.yaml)

.PHONY: bench test slow tables lint reference package sanitize races fuzz neon install clean

install: $(VENV)/installed

# Entry points and the C extension live in the installation, so their sources decide when to install again.
$(VENV)/installed: pyproject.toml setup.py $(wildcard prunebench/*/native/*.[ch])
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "make: '$(PYTHON) -m venv' failed; install Python 3.10 or newer with venv, or set PYTHON=…"; exit 1; }
	@echo "installing into $(VENV) (a few minutes the first time: torch is large)"
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@$(BIN)/python -c "from prunebench import engine; why = engine.available(); \
	  print('csr backend: ready' if why is None else f'csr backend: OFF, everything else works: {why}')"
	@touch $@

bench: install
	@$(BIN)/python -m pytest benchmarks --profile $(PROFILE) $(addprefix --seeds ,$(filter-out default,$(SEEDS))) --benchmark-save=$(PROFILE); status=$$?; \
	  $(BIN)/prunebench tables && exit $$status

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m "not slow" -n auto --dist loadfile

slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m slow -n auto --dist loadfile

tables: install
	$(BIN)/prunebench tables

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

reference: install
	$(BIN)/python docs/make_reference.py

package: install
	.ci/package $(BIN)/python

sanitize: install
	.ci/sanitize $(BIN)/python

races:
	.ci/races

fuzz: install
	.ci/fuzz 60 $(BIN)/python

neon:
	.ci/neon

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache
