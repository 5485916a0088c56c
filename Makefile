# `make sweep` runs the default study and `make test` the tests; both set everything up first.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
OLDEST ?= .venv-oldest
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help sweep validate test benchmarks lint format typecheck compat reports pack clean

help:
	@echo "make sweep      set up, run the default study, print where its page is"
	@echo "make validate   set up, hold predictions against what others measured on GPUs"
	@echo "make test       set up, run the tests"
	@echo "make benchmarks what watching costs, as ratios within one run"
	@echo "make lint       ruff: lint and format"
	@echo "make format     let ruff rewrite what it can"
	@echo "make typecheck  mypy"
	@echo "make compat     the tests of the oldest supported libraries, in their own environment"
	@echo "make reports    render all pages of what is stored again, and the index over them"
	@echo "make pack       pack the records of the stored studies, to be kept"
	@echo "make clean      remove the environments and caches"

# torch first and by itself: what is installed then satisfies the other packages' wish for a torch,
# and no second build of it is fetched.
define install
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check -c $(2) torch
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check -c $(2) -e '.[$(3)]'
	@touch $(1)/.installed-$(3)
endef

$(VENV)/.installed-test: pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt,test)

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,dev]'
	@touch $@

$(OLDEST)/.installed-compat: pyproject.toml constraints-oldest.txt
	$(call install,$(OLDEST),constraints-oldest.txt,compat)

sweep: $(VENV)/.installed-test
	@$(BIN)/python -m profiler.sweep $(ARGS)

validate: $(VENV)/.installed-test
	@$(BIN)/python -m profiler.validate $(ARGS)

test: $(VENV)/.installed-test
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --ignore=tests/benchmarks $(ARGS)

benchmarks: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/benchmarks $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(VENV)/.installed-dev
	$(BIN)/mypy

compat: $(OLDEST)/.installed-compat
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n auto tests/compat $(ARGS)

reports: $(VENV)/.installed-test
	@for folder in reports/*; do \
		if [ -f "$$folder/validation.json" ]; then \
			$(BIN)/python -m profiler.validate --render --output "$$folder" || exit; \
		elif [ -f "$$folder/kernels.json" ]; then \
			$(BIN)/python -m experiments.kernels --render --output "$$folder" || exit; \
		elif [ -f "$$folder/advice.json" ]; then \
			$(BIN)/python -m profiler.advise --render --output "$$folder" || exit; \
		elif [ -d "$$folder/records" ]; then \
			$(BIN)/python -m profiler.report "$$folder" || exit; \
		fi; \
	done
	@$(BIN)/python -m profiler.report reports --index

# What a study gave is kept packed: a tenth of the bytes.
pack:
	@find reports -path "*/records/*.json" -not -path "reports/fits/*" -not -path "reports/validation/*" -exec gzip --no-name --best --force {} +

clean:
	rm -rf $(VENV) $(OLDEST) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
