# make up     the whole thing: install, bring session 4 up, replay it
# make test   install, run the tests (what this machine lacks is skipped, with the reason)
# NO_SYSTEM=1 forbids installing packages of the distribution
PYTHON ?= python3
SESSION ?= session4
BIN := .venv/bin

.PHONY: help install dev up test lint bench tempest clean
help:
	@sed -n 's/^# //p' Makefile

# pip, not uv, installs lab itself: it is what the machine's owner has configured (indexes, proxies, certificates).
install: $(BIN)/.installed
$(BIN)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lab needs Python 3.11 or newer; PYTHON=... names one")'
	@scripts/system-packages python
	@echo "• installing lab into .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@
	@echo "✓ lab is in .venv/bin"

dev: install $(BIN)/.dev
$(BIN)/.dev: pyproject.toml | $(BIN)/.installed
	@echo "• installing what tests and linters need"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --group dev
	@if pkg-config --exists libvirt 2>/dev/null; then $(BIN)/python -m pip install -q --disable-pip-version-check -e '.[libvirt]'; fi
	@touch $@

up: install
	@scripts/system-packages guests
	@$(BIN)/lab up $(SESSION)
	@$(BIN)/lab replay $(SESSION)
	@$(BIN)/lab check $(SESSION)
	@echo
	@echo "Next: put lab on your PATH for this shell, and look around:"
	@echo '  export PATH="$(CURDIR)/$(BIN):$$PATH"'
	@echo '  eval "$$(lab openrc)"        …and so that the openstack commands that lab shows find the cloud'
	@echo "  lab status                 what runs, and Horizon's address;  lab password  the login"
	@echo "  lab ssh lab-vm             into the instance"
	@echo "  lab reset                  back to the start;  lab replay $(SESSION) --step  does it step by step"

test: dev
	@$(BIN)/python -m tests $(ARGS)

lint: dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: dev
	@$(BIN)/python -m tests.bench

tempest: dev
	@$(BIN)/python -m tests.tempest

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
