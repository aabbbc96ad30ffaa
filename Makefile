# What a person or CI does with a checkout. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help venv run install uninstall test test-agent test-trainer test-vm test-load bench soak clean

help: ## list what make can do
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

venv: $(VENV)/.installed ## make .venv with cabinsense in it

run: venv ## fetch models and the sample clip, then watch the clip in the terminal
	@$(BIN)/cabinsense models fetch --samples
	@$(BIN)/cabinsense run --sample

# `sudo make install ARGS='--with network'`; systemd/install.sh --help lists the arguments.
install: ## install the agent as a service of this machine, or a newer version over it (root; ARGS=…)
	@systemd/install.sh $(ARGS)

uninstall: ## take the service off this machine; configuration and gallery stay, unless ARGS=--purge (root)
	@systemd/uninstall.sh $(ARGS)

test: $(VENV)/.dev ## linters, type checker and all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile.l4t
	$(BIN)/shellcheck systemd/*.sh tests/vm/*.sh tests/vm/inside/*.sh
	+@$(MAKE) --no-print-directory --jobs=2 --keep-going test-agent test-trainer

# Side by side. The trainer's wait when both want a core: those of the daemon know clocks, and training does not.
test-agent: $(VENV)/.dev
	$(BIN)/pytest tests --ignore=tests/trainer

test-trainer: $(VENV)/.dev
	OMP_NUM_THREADS=1 nice $(BIN)/pytest --quiet tests/trainer

test-vm: $(VENV)/.dev ## try the service in a virtual machine with real systemd (root, qemu; long)
	$(BIN)/pytest tests/vm

test-load: $(VENV)/.dev ## measure the latency budget beside a busy neighbour (a quiet machine, minutes)
	$(BIN)/pytest -rP tests/integration/load

bench: venv ## measure the chain on the sample clip
	@$(BIN)/cabinsense models fetch --samples
	@$(BIN)/cabinsense bench

soak: venv ## run 20,000 frames and watch the memory (minutes)
	@$(BIN)/cabinsense models fetch --samples
	@$(BIN)/python -m tests.soak

clean: ## remove .venv and what was built; fetched models stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find agent engines calibration trainer tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written when its step is done: nothing is installed again until pyproject.toml changes.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'error: cabinsense needs Python 3.10 or newer; name one: make PYTHON=python3.12 …' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.made
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.made
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev,trainer,evaluate,openvino,litert,faiss,metrics,gpio]'
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[tensorrt-rtx]' || \
	  echo 'note: TensorRT for RTX cannot be installed here; the tests that need it will be skipped' >&2
	rm -rf $(VENV)/stubs
	$(BIN)/python -m pip install --no-deps --target $(VENV)/stubs tensorrt-stubs==10.8.0.43.1
	$(BIN)/python tests/mend_stubs.py $(VENV)/stubs
	@touch $@
