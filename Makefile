# Every target installs what it needs into ./.venv; a Python of 3.11 or newer with venv is all that has to be there.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
comma := ,
CHECKED := engines server compile proto trainer src/mezzotint tests benchmarks

.PHONY: help setup demo test test-all test-gpu lint bench-peers proto reference wheel clean

help: ## show this
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(STAMP) ## install everything into .venv

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mezzotint: needs Python 3.11 or newer; make PYTHON=python3.12 setup")'
	$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip > /dev/null 2>&1 || \
	  $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## compile the bundled model, serve it, and paint build/shark.png
	$(BIN)/mezzotint compile models/emoji --output build/emoji --precision auto
	$(BIN)/mezzotint demo build/emoji --output build/shark.png

lint: setup ## style, types and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Two workers, since one exports or starts a process while the other waits; slow tests measure and run one by one.
FAST := -m "not slow and not gpu" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: lint ## lint, and the tests that take seconds
	$(BIN)/pytest $(FAST)

test-all: lint ## lint, and all tests but those that need a GPU; writes docs/verification.md
	@mkdir -p build
	failed=0; \
	$(BIN)/pytest $(FAST) --junit-xml=build/tests.xml || failed=1; \
	$(BIN)/pytest -m "slow and not gpu" --junit-xml=build/slow-tests.xml || failed=1; \
	$(BIN)/python -m tests.summary build/tests.xml build/slow-tests.xml docs/verification.md; \
	exit $$failed

test-gpu: setup ## the tests that need a GPU
	$(BIN)/pytest -m gpu

# Options of all full-size bundles; verification paints one prompt, and random weights have no ranges worth finding.
FULL := --height 256 --width 256 --max-rows 2 --step-cache --prompt "a cat" \
  --calibration-prompts build/few-prompts.txt --tiny-decoder build/taesd-full
SHORTCUTS := cache_interval=3 cache_interval=5 guidance_end=0.6 guidance_end=0.4 cache_interval=3,guidance_end=0.6 \
  cache_interval=5,guidance_end=0.6 cache_interval=5,guidance_end=0.6,decoder=tiny
OURS := $(foreach precision,fp32 int8 int8-bf16,$(precision)=build/sd15-$(precision)) \
  $(addprefix int8-bf16=build/sd15-int8-bf16$(comma),$(SHORTCUTS))

# PEERS='--rounds 5 --skip torch.compile' adds options; what is finished is kept.
bench-peers: setup ## time a full-size picture beside other engines; installs them under build/peers, takes hours
	test -f build/taesd-full/config.json || $(BIN)/python -m benchmarks.full_size_model build/sd15-full --tiny-decoder build/taesd-full
	head -4 compile/data/calibration_prompts.txt > build/few-prompts.txt
	for precision in fp32 int8 int8-bf16; do \
	  $(BIN)/mezzotint compile build/sd15-full --output build/sd15-$$precision --precision $$precision $(FULL); done
	$(BIN)/python -m benchmarks.peers build/sd15-full --name sd15-size --samples 20 $(addprefix --bundle ,$(OURS)) \
	  --once torch.compile --once stable-diffusion.cpp $(PEERS)

reference: setup ## write docs/reference.md, every command with its options
	$(BIN)/python -m tests.reference

# An old generator on purpose: its code loads with every protobuf from 4.25 on, whatever else is installed beside it.
# The stubs of kserve.proto get a descriptor pool of their own: Triton's client in the same process has the same names.
proto: ## regenerate the gRPC stubs from proto/*.proto
	test -x build/protoc/bin/python || $(PYTHON) -m venv build/protoc
	build/protoc/bin/pip install --disable-pip-version-check --quiet "grpcio-tools==1.62.3" "setuptools<70"
	build/protoc/bin/python -m grpc_tools.protoc -Isrc --python_out=src --pyi_out=src --grpc_python_out=src src/mezzotint/proto/mezzotint.proto
	build/protoc/bin/python -m grpc_tools.protoc -Isrc --python_out=src --pyi_out=src src/mezzotint/proto/kserve.proto
	sed -i.old 's/_descriptor_pool\.Default()/_descriptor_pool.DescriptorPool()/' src/mezzotint/proto/kserve_pb2.py
	rm src/mezzotint/proto/kserve_pb2.py.old

wheel: setup ## build dist/*.whl
	$(BIN)/python -m build --wheel

clean: ## remove what was built; .venv stays
	rm -rf build/emoji build/shark.png build/lib build/bdist.* build/tests.xml build/slow-tests.xml dist *.egg-info src/*.egg-info
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
