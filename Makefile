# Every target makes its own environment in .venv when there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart test test-fast lint bench ground-truth search-quality docs docs-check package-check clean

$(READY): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once, a few minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[onnx,openvino,mnn,ncnn,enas,plot,docs,dev]"
	@touch $@

# The main job: a search per hardware target through NNI's manager, on embedded real data.
quickstart: $(READY)
	$(BIN)/nni-proxyless run experiments/quickstart/config.yml

# Four tests at a time, each on one core: the end-to-end tests often wait for NNI's manager.
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 4 --dist loadgroup --no-loadscope-reorder --durations=25

# All tests, the slow end-to-end ones included, except those of `docs-check` and `package-check`.
test: $(READY)
	$(BIN)/python -m pip check
	$(PARALLEL) -m "not documentation and not packaging"

test-fast: $(READY)
	$(PARALLEL) -m "not slow and not documentation and not packaging"

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
	$(BIN)/python -m benchmarks.latency.published_networks
	$(BIN)/python -m benchmarks.cost.end_to_end

# Both take hours and continue where they stopped. DATA is the folder with CIFAR-10's train.tar.xz.
DATA ?= ../shared/data/cifar10
ground-truth: $(READY)
	$(BIN)/python -m benchmarks.search_quality.ground_truth.train --data $(DATA)
	$(BIN)/python -m benchmarks.search_quality.ground_truth.summary

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

# The wheel runs a search in an empty environment.
package-check: $(READY)
	$(BIN)/python -m pytest -m packaging tests/system

clean:
	rm -rf $(VENV) build dist results
