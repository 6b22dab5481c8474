# `make` shows this file's table of contents.

SHELL := /bin/bash

INPUT ?= input
OOF ?= oof
SUBMISSIONS ?= submissions
RUN ?=
ARGS ?=
TRIALS ?= 20
TUNE_EPOCHS ?= 4

# Where packages are installed; empty to use the Python that is active (Kaggle, Colab, conda).
VENV ?= .venv
PYTHON ?= python3

ifeq ($(strip $(VENV)),)
PY := $(PYTHON)
READY := check-active
READY_DEV := check-active
else
PY := $(VENV)/bin/python
READY := $(VENV)/installed
READY_DEV := $(VENV)/installed-dev
endif

# Names and passwords reach the scripts letter by letter: make would read $ in them, and the shell $,
# ` and " again, were they written into a recipe. ARGS is for the shell to split.
override INPUT := $(value INPUT)
override OOF := $(value OOF)
override SUBMISSIONS := $(value SUBMISSIONS)
override RUN := $(value RUN)
override STORAGE := $(value STORAGE)
override WEIGHTS := $(value WEIGHTS)
override IMAGES := $(value IMAGES)
override IDS := $(value IDS)
override ARGS := $(value ARGS)
export INPUT OOF SUBMISSIONS RUN STORAGE WEIGHTS IMAGES IDS

# Memory in pages of 2 MiB where Linux offers them: a training step is 1.1 to 1.3 times as fast on a
# CPU (docs/speed.md). glibc reads this only when a process starts.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

COMMON = --input-dir "$$INPUT" --oof-dir "$$OOF" --submissions-dir "$$SUBMISSIONS" $(RUN_OPTION) $(RECIPE_OPTION)
RUN_OPTION = $(if $(RUN),--run "$$RUN")
FOLD_OPTION = $(if $(FOLD),--fold $(FOLD))
FOLDS_OPTION = $(if $(FOLDS),--folds $(FOLDS))
GPUS_OPTION = $(if $(GPUS),--gpus $(GPUS))
RUNS_OPTION = $(if $(RUNS),--runs $(RUNS))
SEEDS_OPTION = $(if $(SEEDS),--seeds $(SEEDS))
RECIPE_OPTION = $(if $(RECIPE),--recipe $(RECIPE))
STORAGE_OPTION = $(if $(STORAGE),--storage "$$STORAGE")

.PHONY: help setup folds train tune submit predict export explain compare report demo kaggle test torture bench bench-growth lint format lock check-active

# `make folds train submit` means one after the other, whatever -j says; only folds are independent.
FOLD_JOBS = $(filter train-%,$(MAKECMDGOALS))
ifneq ($(filter-out train-%,$(MAKECMDGOALS)),)
.NOTPARALLEL:
JOBS = 1
else
# Before GNU make 4.2 it is not known; -j alone means as many as there are.
JOBS = $(or $(patsubst -j%,%,$(filter -j%,$(MAKEFLAGS))),$(if $(filter -j,$(MAKEFLAGS)),$(words $(FOLD_JOBS)),1))
endif

help:
	@echo 'Usage: make VERB [VARIABLE=value ...]'
	@echo
	@echo '  make demo      the whole pipeline on a small synthetic competition, a few minutes'
	@echo '  make folds     check the input, find copies, deal samples into folds    FOLDS=5'
	@echo '  make tune      search learning rate and batch size                      TRIALS=20 TUNE_EPOCHS=4 FOLD=0'
	@echo '                 several at once, also on other machines, at one study   STORAGE=shared/study.log'
	@echo '  make train     train one fold, or every fold that is not finished       FOLD=0'
	@echo '                 quick, for two cores, or full, for a GPU                RECIPE=quick'
	@echo '  make -j2 train-0 train-1   these folds, two at once'
	@echo '  make train FOLD=0 GPUS=2   one fold, by two GPUs together'
	@echo '  make submit    predict the test set, blend, write the CSV               RUNS="a b"'
	@echo '  make predict   classes of new images, with probabilities; one CSV       IMAGES=folder'
	@echo '  make export    one ONNX file that predicts without this program         RUNS="a b"'
	@echo '                 or tables of probabilities, to stack elsewhere          ARGS=--tables'
	@echo '                 or one network that learned from all folds              ARGS="--distill 2"'
	@echo '  make explain   which channel decides, where the network looked          IDS="17 23"'
	@echo '  make compare   is run b better than run a? overall and by class         RUNS="a b"'
	@echo '                 each by several seeds: a, a-seed1 and a-seed2           RUNS="a b" SEEDS=3'
	@echo '  make report    one HTML page that shows a run'
	@echo '  make kaggle    one zip and one notebook, to run all this on Kaggle      WEIGHTS=file.pth'
	@echo
	@echo '  make setup     install what is needed into .venv (the others do, too)   VENV=.venv PYTHON=python3'
	@echo '  make test      run the tests             make lint     ruff and mypy'
	@echo '  make format    format the code           make lock     renew requirements*.txt'
	@echo '  make torture   kill every verb again and again, feed it broken files: half an hour'
	@echo '  make bench     how fast this machine trains, beside what it could: ten minutes'
	@echo '  make bench-growth   time and memory as the number of samples grows'
	@echo
	@echo 'Every verb takes INPUT=input OOF=oof SUBMISSIONS=submissions RUN= and ARGS="...", which goes to'
	@echo 'the script as it is; ARGS=--help lists its settings, --help-all all. Without RUN= a run is'
	@echo 'called after its network, weights, recipe and seed, such as resnet18-scratch.'
	@echo 'VENV= (empty) uses the Python that is active, as on Kaggle or in a conda environment.'
	@echo
	@echo 'Example: make train FOLD=0 RUN=large ARGS="--epochs 30 --image-size 128"'

folds: $(READY)
	@$(PY) src/folds.py $(COMMON) $(FOLDS_OPTION) $(ARGS)

tune: $(READY)
	@$(PY) src/tune.py $(COMMON) $(FOLD_OPTION) $(STORAGE_OPTION) --trials $(TRIALS) --tune-epochs $(TUNE_EPOCHS) $(ARGS)

train: $(READY)
	@$(PY) src/train.py $(COMMON) $(FOLD_OPTION) $(GPUS_OPTION) $(ARGS)

# One fold a job: make -j2 train-0 train-1. Bars of several on one terminal would be a mess.
.PHONY: $(FOLD_JOBS)
$(FOLD_JOBS): export TERM = dumb
# Those that are trained at once share the processors: two folds with a core each train 1.2 to 1.3
# times as fast as one with both, and three times as fast as two that both want both.
SHARE = k=$$(( $(JOBS) < $(words $(FOLD_JOBS)) ? $(JOBS) : $(words $(FOLD_JOBS)) )); \
	n=$$(( $$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN) / (k * $(or $(GPUS),1)) )); \
	[ $$k -eq 1 ] || export OMP_NUM_THREADS=$${OMP_NUM_THREADS:-$$(( n > 0 ? n : 1 ))}
$(FOLD_JOBS): train-%: $(READY)
	@$(SHARE); $(PY) src/train.py $(COMMON) --fold $* $(GPUS_OPTION) $(ARGS)

submit: $(READY)
	@$(PY) src/submit.py $(COMMON) $(RUNS_OPTION) $(ARGS)

predict: $(READY)
	@$(PY) src/predict.py $(COMMON) $(if $(IMAGES),--images "$$IMAGES") $(RUNS_OPTION) $(ARGS)

export: $(READY)
	@$(PY) src/export.py $(COMMON) $(RUNS_OPTION) $(ARGS)

# The shell splits IDS, and does nothing else to it.
explain: $(READY)
	@set -f; $(PY) src/explain.py $(COMMON) $(if $(IDS),--ids $$IDS) $(ARGS)

compare: $(READY)
	@$(PY) src/compare.py $(COMMON) $(RUNS_OPTION) $(SEEDS_OPTION) $(ARGS)

report: $(READY)
	@$(PY) src/report.py $(COMMON) $(STORAGE_OPTION) $(ARGS)

kaggle: $(READY)
	@$(PY) src/kaggle.py $(COMMON) $(if $(WEIGHTS),--weights "$$WEIGHTS") $(ARGS)

demo: $(READY)
	@$(PY) src/demo.py $(ARGS)

setup: $(READY)

test: $(READY_DEV)
	@$(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

torture: $(READY_DEV)
	@$(PY) -m pytest -v -m torture $(ARGS)

bench: $(READY)
	@PYTHONPATH=src $(PY) -m benchmarks $(ARGS)

bench-growth: $(READY)
	@PYTHONPATH=src $(PY) -m benchmarks.growth $(ARGS)

lint: $(READY_DEV)
	@$(PY) -m ruff check src tests benchmarks kaggle
	@$(PY) -m ruff format --check src tests benchmarks kaggle
	@$(PY) -m mypy

format: $(READY_DEV)
	@$(PY) -m ruff check --fix src tests benchmarks kaggle
	@$(PY) -m ruff format src tests benchmarks kaggle

# uv resolves for every platform at once and writes the markers; pip installs what it wrote.
LOCK = $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header
lock: $(READY_DEV)
	@$(LOCK) pyproject.toml --output-file requirements.txt
	@$(LOCK) --group dev --constraint requirements.txt --output-file requirements-dev.txt

CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo 'error: $(PYTHON) is not Python 3.11 or newer ('"$$($(PYTHON) --version 2>&1)"');' \
	'name one that is, such as: make setup PYTHON=python3.12' >&2; exit 2; }

check-active:
	@$(CHECK_PYTHON)
	@$(PY) src/environment.py

ifneq ($(strip $(VENV)),)
PIP_INSTALL = $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes
# A stamp is touched only after pip has succeeded, so an interrupted setup is taken up again.
$(VENV)/installed: requirements.txt
	@$(PY) -m pip --version >/dev/null 2>&1 || { $(CHECK_PYTHON); $(PYTHON) -m venv --clear $(VENV); }
	@echo 'installing requirements.txt into $(VENV) ...'
	@$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@
endif
