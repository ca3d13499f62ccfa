# `make` alone lists the targets. All of them work in one locked environment, .venv, made on demand.
PYTHON ?= python3.11

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long test-all test-slurm small teachers record picture docs minute tiny ablations golden handbook plans science claims lint format lock clean

ACTIVATE := export PATH="$(CURDIR)/.venv/bin:$$PATH"
INSTALL := .venv/bin/python -m pip install -q -q --no-input --disable-pip-version-check

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.ready ## make .venv from requirements.lock (about 2.5 minutes, once)
	@:

demo: .venv/.ready ## see Phased DMD beside DMD2
	@$(ACTIVATE)
	export OMP_NUM_THREADS=1
	.venv/bin/python -m pdmd demo -- --configfile config/demo.yaml

# Three at a time on two cores: much of what they do is wait, for a SLURM or for a process.
PYTEST := .venv/bin/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder -rs

test: .venv/.ready ## run the tests, but for the longest
	@$(ACTIVATE)
	$(PYTEST) -m 'not long'

test-long: .venv/.ready ## run the longest tests
	@$(ACTIVATE)
	$(PYTEST) -m long

test-all: .venv/.ready ## run all tests, and say what they cover
	@$(ACTIVATE)
	$(PYTEST) --cov=pdmd --cov=snakemake_executor_plugin_submitit --cov-report=term:skip-covered

test-slurm: .venv/.ready ## run every test on a SLURM of its own, the slow ones too (as root)
	@$(ACTIVATE)
	PDMD_REQUIRE_SLURM=1 PDMD_SLOW_SLURM=1 .venv/bin/python -m pytest tests/slurm --durations=10

small: .venv/.ready ## run the small image and video models at length (two hours)
	@$(ACTIVATE)
	export OMP_NUM_THREADS=1
	.venv/bin/python -m pdmd demo -- --configfile config/small.yaml

teachers: .venv/.ready ## fit the small teachers and judges anew, by the recipe of the kept ones
	@$(ACTIVATE)
	export OMP_NUM_THREADS=1
	.venv/bin/snakemake -c2 results/teachers/{emoji,moving}/{base/model,data/judge}.safetensors --configfile config/teachers.yaml
	.venv/bin/snakemake -c2 results/teachers_second/{emoji,moving}/base/model.safetensors --configfile config/teachers_second.yaml

record: .venv/.ready ## keep finished runs in docs/record, and fill README and docs/results.md
	@.venv/bin/python -m pdmd record

minute: .venv/.ready ## run the whole workflow at a tiny size, in a minute
	@$(ACTIVATE)
	.venv/bin/python -m pdmd demo -- --configfile config/minute.yaml

tiny: .venv/.ready ## run every scenario of a released model, from fetch to export, on tiny random ones, in a minute
	@$(ACTIVATE)
	export OMP_NUM_THREADS=1
	.venv/bin/python -m pdmd demo -- --configfile config/tiny.yaml

golden: .venv/.ready ## run a tiny whole workflow afresh, and compare its results with those on record
	@$(ACTIVATE)
	export OMP_NUM_THREADS=1
	rm -rf results/golden
	.venv/bin/python -m pdmd warm -- snakemake -c2 --configfile tests/golden/chain.yaml
	.venv/bin/python tests/golden/digests.py results/golden

picture: .venv/.ready ## draw README's picture of the method
	@.venv/bin/python -m pdmd.report.paper.method docs/method.png

docs: .venv-docs/.ready ## build the pages of docs, README and config/README.md as a site, in site/
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict --quiet
	echo 'site/index.html'

handbook: .venv/.ready ## write the tables of config/README.md and the schemas of YAML files
	@.venv/bin/python -m pdmd.config.handbook

plans: .venv/.ready ## plan every released scenario on fake tensors, for its jobs and docs/real_models.md (10 minutes)
	@.venv/bin/python -m pdmd.planning.document

ablations: .venv/.ready ## run every ablation of config/ablations beside what is there
	@$(ACTIVATE)
	export OMP_NUM_THREADS=1
	.venv/bin/python -m pdmd warm -- snakemake -c2 ablations

# Cheap and decisive ones first; each ends with its tables, and what is finished is not run again.
SCIENCE ?= mixture exits renoise phases length reuse complexity3 complexity7 complexity9 complexity9_apart auto adaptive digits moving emoji moving_reuse moving_adaptive small_auto moving_more emoji_more second twins moving_average moving_grid intervals

science: .venv/.ready ## run what decides the claims (ten hours by estimate; SCIENCE="mixture exits" a part)
	@$(ACTIVATE)
	export OMP_NUM_THREADS=1
	for part in $(SCIENCE); do
	  echo "$$part:"
	  .venv/bin/python -m pdmd demo -- --configfile config/science/$$part.yaml
	done
	.venv/bin/python -m pdmd claims --output results/claims_of_all

claims: .venv/.ready ## decide every claim of config/claims.yaml by what was run
	@.venv/bin/python -m pdmd claims --output results/claims_of_all

lint: .venv/.ready ## check style, types and the workflow
	@$(ACTIVATE)
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow/Snakefile rules
	python tests/lint_snakemake.py

format: .venv/.ready ## format all code
	@$(ACTIVATE)
	ruff check --fix-only .
	ruff format .
	snakefmt Snakefile workflow/Snakefile rules

lock: .venv/.ready ## pin what .venv holds, after adding what pyproject.toml asks for
	@$(INSTALL) -e '.[dev]' -e workflow/executor
	.venv/bin/python -m pip freeze --all --exclude-editable --exclude pdmd --exclude snakemake-executor-plugin-submitit --exclude pip > $@.pins
	if grep -n ' @ ' $@.pins; then
		echo 'make lock: the packages above came from a path or an address, and cannot be pinned' >&2
		rm $@.pins
		exit 1
	fi
	echo '# Every package of .venv at its exact version, with the digests of its files (Linux, Python 3.11).' > $@.new
	echo '# Regenerate with: make lock' >> $@.new
	.venv/bin/uv pip compile --quiet --no-deps --generate-hashes --no-annotate --no-header --python-version 3.11 - < $@.pins >> $@.new
	rm $@.pins
	mv $@.new requirements.lock
	touch .venv/.ready
	echo '# What the site is built with (make docs), as requirements.lock. Regenerate with: make lock' > $@.new
	.venv/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' |
		.venv/bin/uv pip compile --quiet --generate-hashes --no-annotate --no-header --python-version 3.11 - >> $@.new
	mv $@.new envs/docs.lock

clean: ## drop caches and have .venv made afresh; results stay
	@rm -rf .venv/.ready .coverage .mypy_cache .pytest_cache .ruff_cache
	find pdmd tests examples workflow -name __pycache__ -type d -prune -exec rm -rf {} +

# What builds the site, in a .venv of its own: nothing that trains or measures depends on it.
.venv-docs/.ready: envs/docs.lock
	@rm -rf .venv-docs
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install -q -q --no-input --disable-pip-version-check --require-hashes -r $<
	touch $@

# Written last, so a .venv without it is half-made and starts afresh: pip cannot tell a package that
# a killed install left incomplete from a whole one. An older stamp means an update in place.
.venv/.ready: requirements.lock pyproject.toml workflow/executor/pyproject.toml
	@base=$$($(PYTHON) -c 'import sys; print(sys._base_executable if sys.version_info[:2] == (3, 11) else "")' 2>/dev/null) || base=
	if [ -z "$$base" ]; then
		echo "pdmd needs Python 3.11, and '$(PYTHON)' is not that: install python3.11, or name one: make setup PYTHON=/path/to/python3.11" >&2
		exit 1
	fi
	if [ -f $@ ] && .venv/bin/python -m pip --version >/dev/null 2>&1; then
		echo 'Updating .venv ...'
		rm $@
	else
		has_venv() { "$$base" -c 'import ensurepip' 2>/dev/null; }
		if ! has_venv && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
			echo 'Installing python3.11-venv ...'
			(export DEBIAN_FRONTEND=noninteractive; apt-get update && apt-get install -y --no-install-recommends python3.11-venv) >/dev/null 2>&1 || true
		fi
		if ! has_venv; then
			echo "$$base cannot make virtual environments: install the package python3.11-venv, then run make again" >&2
			exit 1
		fi
		echo 'Setting up .venv (about 2.5 minutes) ...'
		rm -rf .venv
		"$$base" -m venv .venv
	fi
	$(INSTALL) --no-deps --require-hashes -r requirements.lock
	$(INSTALL) --no-deps --no-build-isolation -e . -e workflow/executor
	touch $@
	echo "... .venv is ready after $$SECONDS s"
