# Every target does its own set-up in .venv; a machine with Python 3.10 or newer is all it takes.
#   make demo           a real photograph from 128 to 1024, with a comparison sheet in demo/
#   make test           ruff and the whole test suite
#   make lint           ruff and the type checker
#   make browser        what the tests in ComfyUI's front end need besides Chromium; without it they are skipped
#   make test-comfyui COMFYUI_PATH=...   the tests that need a real ComfyUI checkout
# PYTHON=python3.12 chooses the interpreter, TORCH="torch==2.7.0" another torch (pip's words).

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := $(VENV)/.tools
TYPING := $(VENV)/typing/progressive_upsampling
# The front end of the oldest supported ComfyUI, beside the newest, which the extra `browser` names.
FRONT_END := 1.27.10
ASIDE := $(VENV)/front-ends/$(FRONT_END)
PIP := -m pip --disable-pip-version-check install --quiet

COMFYUI_VENV := .venv-comfyui
COMFYUI_PYTHON ?= $(COMFYUI_VENV)/bin/python
COMFYUI_DIR = $(abspath $(COMFYUI_PATH))

.PHONY: demo test lint browser test-comfyui clean FORCE
.DELETE_ON_ERROR:

demo: $(READY)
	$(BIN)/progressive-upsampling demo

test: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

lint: $(TOOLS) $(TYPING)
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

browser: $(VENV)/.browser $(ASIDE)

test-comfyui: $(if $(filter $(COMFYUI_VENV)/%,$(COMFYUI_PYTHON)),$(COMFYUI_VENV)/.ready)
	@test -n "$(COMFYUI_PATH)" || { echo "COMFYUI_PATH: expected a ComfyUI checkout, got nothing" >&2; exit 2; }
	COMFYUI_PATH="$(COMFYUI_DIR)" $(COMFYUI_PYTHON) -m pytest --ignore=tests/core --ignore=tests/packaging

clean:
	rm -rf $(VENV) $(COMFYUI_VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

# Rewritten only when TORCH changes, so that a new choice of torch sets the environment up again.
$(VENV)/torch.txt: FORCE
	@mkdir -p $(VENV)
	@printf '%s\n' '$(TORCH)' | cmp -s - $@ || printf '%s\n' '$(TORCH)' > $@

$(READY): pyproject.toml $(VENV)/torch.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, not " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) $(TORCH)
	$(BIN)/python $(PIP) --editable ".[test]"
	@touch $@

$(TOOLS): $(READY)
	$(BIN)/python $(PIP) --editable ".[dev]"
	@touch $@

$(VENV)/.browser: $(TOOLS)
	$(BIN)/python $(PIP) --editable ".[browser]"
	@touch $@

$(ASIDE): | $(READY)
	$(BIN)/python $(PIP) --no-deps --target $@ comfyui-frontend-package==$(FRONT_END)
	@touch $@

# The type checker cannot follow an editable install into a folder with another name.
$(TYPING): $(READY)
	@mkdir -p $(@D)
	@ln -sfn ../.. $@
	@touch $@

$(COMFYUI_VENV)/.ready: pyproject.toml
	@test -f "$(COMFYUI_DIR)/requirements.txt" || { echo "COMFYUI_PATH: expected a ComfyUI checkout, got '$(COMFYUI_PATH)'" >&2; exit 2; }
	$(PYTHON) -m venv $(COMFYUI_VENV)
	$(COMFYUI_VENV)/bin/python $(PIP) $(TORCH)
	$(COMFYUI_VENV)/bin/python $(PIP) -r "$(COMFYUI_DIR)/requirements.txt" requests
	$(COMFYUI_VENV)/bin/python $(PIP) --editable ".[test]"
	@touch $@
