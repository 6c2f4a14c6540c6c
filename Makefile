# make book: the whole book. make test: all tests. Both set up everything they need.

SHELL := /bin/bash
VENV := .venv
PROFILE := quick
CONSTRAINTS := constraints.txt
CHAPTER :=
ARGS :=

# Any Python from 3.11 to 3.13; name yours with `make PYTHON=/path/to/python3.12 book`.
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo "$$p" && break; done)
INSTALLED := $(VENV)/.installed
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help book pdf test run lab benchmark pair links clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12
	@echo
	@echo "PROFILE=$(PROFILE) (quick, smoke, paper) holds for book, pdf and run; CHAPTER and ARGS for run."

book: $(INSTALLED)  ## run the chapters that changed and build the html: PROFILE=quick
	@$(RUN) -m wcka book --profile $(PROFILE)

pdf: $(INSTALLED)  ## the book, and a PDF of it (needs Chromium): PROFILE=quick
	@$(RUN) -m wcka book --profile $(PROFILE) --pdf

test: $(INSTALLED)  ## run all tests, every chapter at the smoke profile among them
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@$(RUN) -m pytest

run: $(INSTALLED)  ## run one chapter: make run CHAPTER=02 ARGS="-p seed 3"
	@test -n "$(CHAPTER)" || { echo 'which chapter? make run CHAPTER=02 ARGS="-p seed 3"'; exit 2; }
	@$(RUN) -m wcka run $(CHAPTER) --profile $(PROFILE) $(ARGS)

lab: $(INSTALLED)  ## open the notebooks in JupyterLab
	@$(RUN) -m pip install --quiet -c $(CONSTRAINTS) -e '.[lab]'
	@$(RUN) -m wcka pair
	@$(RUN) -m jupyterlab notebooks

benchmark: $(INSTALLED)  ## print the ratios of speed that the project promises
	@$(RUN) -m pytest -m benchmark -s -q --durations=0

pair: $(INSTALLED)  ## write each chapter's .ipynb from its .py
	@$(RUN) -m wcka pair

links: book  ## check the book's links to other sites
	@$(VENV)/bin/jupyter-book build _build/source --builder linkcheck --path-output _build/links

clean:  ## delete what was built (not the environment, the data or the cached results)
	@rm -rf _build

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo 'No Python 3.11 to 3.13 found: install one, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)'; exit 1; }
	@test $$(df -Pk . | awk 'NR == 2 {print $$4}') -gt 8000000 || test -d $(VENV) || { echo 'The environment takes up to 6 GB, and less than 8 GB are free here: make room, then try again.'; exit 1; }
	@echo "Installing the environment into $(VENV) ($(PYTHON)); a few minutes the first time ..."
	@"$(PYTHON)" -m venv $(VENV) || { echo 'Python has no venv: install it (Debian: apt-get install python3-venv), then try again.'; exit 1; }
	@$(RUN) -m pip install --quiet -c $(CONSTRAINTS) -e '.[book,tests,cluster]' 2> $(VENV)/pip.log || { grep -v WARNING $(VENV)/pip.log | tail -n 5; echo 'The packages could not be installed (see above): check the network and the room on the disk, then try again.'; exit 1; }
	@$(RUN) -m pip install --quiet -c $(CONSTRAINTS) -e '.[peers]' 2> $(VENV)/peers.log || echo 'Some libraries that chapter 8 compares with could not be installed (see $(VENV)/peers.log): it leaves out what is missing.'
	@touch $@
