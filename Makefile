# Every target makes its own environment in .venv when there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EVERYTHING := -e ".[onnx,openvino,mnn,ncnn,enas,plot,docs,dev]"
# Pip would compile all modules of all packages, most of which nobody imports. These are compiled once, before several
# processes import them at the same time.
COMPILED := torch, torchvision, torchmetrics, pytorch_lightning, nni.nas.strategy, onnxruntime, onnx, pandas, sklearn, \
	scipy.stats, matplotlib.pyplot, tensorboard.summary, torch.export._trace, onnxruntime.quantization

# Some containers set it. Each of several hundred processes of the tests would then compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test test-fast test-oldest-lightning test-second-python second-python-environment lint bench ground-truth search-quality docs docs-check docs-run package-check clean

$(READY): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once, a few minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(EVERYTHING)
	@$(BIN)/python -W ignore -c "import $(COMPILED)" >/dev/null 2>&1 || true
	@touch $@

# The main job: a search per hardware target through NNI's manager, on embedded real data.
quickstart: $(READY)
	$(BIN)/nni-proxyless run experiments/quickstart/config.yml

# Four tests at a time, each on one core: the end-to-end tests often wait for NNI's manager. MNN needs the tunable from
# glibc 2.41 on (docs/troubleshooting.md).
PARALLEL := OMP_NUM_THREADS=1 GLIBC_TUNABLES=glibc.rtld.execstack=2 $(BIN)/python -m pytest -n 4 --dist loadgroup --no-loadscope-reorder --durations=25

# All tests, the slow end-to-end ones included, except those of `docs-check` and `package-check`.
test: $(READY)
	$(BIN)/python -m pip check
	$(PARALLEL) -m "not documentation and not packaging"

test-fast: $(READY)
	$(PARALLEL) -m "not slow and not documentation and not packaging"

# `.venv` has the current release of Lightning. These tests depend on its version: NNI's strategies and ours, resuming,
# results of version 0.1, retraining, and the adapters. Here they run with the oldest one that is supported.
OLDEST_LIGHTNING := build/lightning-2.0
test-oldest-lightning: $(READY)
	@test -d $(OLDEST_LIGHTNING)/pytorch_lightning || $(BIN)/python -m pip install --quiet --no-deps --target $(OLDEST_LIGHTNING) pytorch-lightning==2.0.9.post0
	PYTHONPATH=$(CURDIR)/$(OLDEST_LIGHTNING) $(PARALLEL) -n 2 -m "not slow" tests/adapters tests/strategies/test_nni_conformance.py \
		tests/strategies/test_nni_strategies.py tests/search/test_version_0_1.py tests/training/test_late_loader.py \
		tests/training/test_resume.py tests/deploy/test_retrain.py

# A part of the fast tests on another Python than that of `.venv`, where there is one. The script says which part.
test-second-python: $(READY)
	.ci/second_python

second-python-environment: $(READY)
	.ci/second_python --only-environment

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks.latency.latency_accuracy
	$(BIN)/python -m benchmarks.latency.latency_fit
	$(BIN)/python -m benchmarks.latency.few_shot
	$(BIN)/python -m benchmarks.cost.search_cost
	$(BIN)/python -m benchmarks.cost.candidate_alignment
	$(BIN)/python -m benchmarks.published_networks.published_networks
	$(BIN)/python -m benchmarks.cost.end_to_end

# Both take hours and continue where they stopped. DATA is the folder with CIFAR-10's train.tar.xz.
DATA ?= ../shared/data/cifar10
ground-truth: $(READY)
	$(BIN)/python -m benchmarks.search_quality.ground_truth.train --data $(DATA)
	$(BIN)/python -m benchmarks.search_quality.ground_truth.train --data $(DATA) --contenders --seeds 16
	$(BIN)/python -m benchmarks.search_quality.rescore

search-quality: $(READY)
	$(BIN)/python -m benchmarks.search_quality.search_quality --data $(DATA)

# The documentation as static pages in build/site, which open without a network. The build executes the tutorial, and
# every warning is an error.
docs: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m sphinx -W --keep-going -q -b html -c docs/site -d build/doctrees . build/site
	@echo "documentation: $(CURDIR)/build/site/index.html"

# What the documentation says of names, commands and files is true, its command and Python blocks run, and the site is
# complete.
docs-check: docs
	$(PARALLEL) tests/system/test_docs.py tests/system/test_docs_run.py tests/system/test_site.py tests/benchmarks/test_pages.py

# Only what `make test` leaves out of it, such as the blocks and the site.
docs-run: docs
	$(PARALLEL) -m documentation tests/system/test_docs_run.py tests/system/test_site.py tests/benchmarks/test_pages.py

# The wheel and the source distribution are in order, and the wheel runs searches in an empty environment.
package-check: $(READY)
	$(BIN)/python -m pytest -m packaging tests/system

clean:
	rm -rf $(VENV) build dist results
