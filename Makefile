# `make demo` and `make test` work from a fresh clone: each creates .venv and installs through constraints.txt first.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
PYTEST_WORKERS ?= 2
PYTEST_ARGS ?=
FUZZ_ARGS ?=
PIP_ARGS ?=
EXTRAS ?= mic,ecg,app,dev

.PHONY: demo demo-mic demo-ecg test test-torchvision test-oldest fuzz audit check format install clean

install: $(VENV)/.installed

$(VENV)/.installed: setup.py $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python >= 3.11 is needed, this is " + sys.version.split()[0] + "; set PYTHON=/path/to/python3.11")'
	@echo "Creating $(VENV) from $(CONSTRAINTS): 2 to 5 minutes, 2.3 GB with a CPU build of PyTorch (a CUDA build adds some 5 GB)."
	$(PYTHON) -m venv $(VENV)
	@echo "[1/2] PyTorch"
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) --constraint $(CONSTRAINTS) torch
	@echo "[2/2] transformers, sentence-transformers, wfdb, … and this project"
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	touch $@

demo: demo-mic demo-ecg

demo-mic: install
	$(BIN)/python studies/mic/demo.py --output_dir outputs/demo_mic

demo-ecg: install
	$(BIN)/python studies/evl_ecg/demo.py --output_dir outputs/demo_ecg

test: install
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal -m "not slow and not gpu" --junitxml=junit.xml $(PYTEST_ARGS)

# The same tests where the processors of Qwen-VL, InternVL, SmolVLM2 and LLaVA-OneVision work; 5.5 GB more with a CUDA build of PyTorch.
test-torchvision:
	$(MAKE) test VENV=.venv-torchvision CONSTRAINTS=constraints-torchvision.txt EXTRAS=mic,ecg,vlm,app,dev

# The same tests with the oldest versions that setup.py allows, in an environment of their own.
test-oldest:
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt

# Damaged files for every reader, FUZZ_ARGS='--reader NAME --count N --seed N' for some: 20,000 each take hours.
fuzz: install
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 PYTHONPATH=tests $(BIN)/python -m fuzzing $(FUZZ_ARGS)

# Known vulnerabilities of the pinned versions, asked of the Python Packaging Advisory Database; it needs the network.
audit: install
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) 'pip-audit>=2.10,<3'
	$(BIN)/python -m pip_audit --no-deps --disable-pip --requirement $(CONSTRAINTS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf outputs .pytest_cache .ruff_cache .mypy_cache junit.xml
