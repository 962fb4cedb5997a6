# The front door. `make` alone lists every command; each one works from a fresh clone.
# Settings: .env (see .env.example). More: docs/DATABASE.md.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := .venv
PYTHON := $(VENV)/bin/python
# The first Python on PATH that is new enough; `make PYTHON3=/path/to/python3 …` names another.
PYTHON3 ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
READY := $(VENV)/ready .env
READY_TO_SERVE := $(VENV)/ready-to-serve .env
READY_TO_TEST := $(VENV)/ready-to-test

.PHONY: help
help: ## list the commands
	@awk 'BEGIN { FS = ":.*## " } /^[a-z0-9-]+:.*## / { printf "  make %-24s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# ── setting up

$(VENV)/bin/python:
	@[ -n "$(PYTHON3)" ] || { echo "error: no Python 3.11 or newer on PATH" >&2; exit 1; }
	$(PYTHON3) -m venv $(VENV)

$(VENV)/ready: requirements.txt requirements-backup.txt | $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/ready-to-serve: requirements-page.txt $(VENV)/ready
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-page.txt
	@touch $@

$(VENV)/ready-to-test: requirements-dev.txt requirements-page.txt $(VENV)/ready
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# An existing .env is the user's: only a missing one is written.
.env: | $(VENV)/ready
	@$(PYTHON) scripts/create_env_file.py

.PHONY: setup
setup: $(READY) ## make .venv and .env

.PHONY: demo
demo: $(VENV)/ready ## the whole life of a database against a server on this machine, no key needed
	@$(PYTHON) scripts/run_demo.py $(ARGS)

# ── from scratch

.PHONY: restore
restore: $(READY) ## rebuild the database from scratch: tech sector, 1 year daily, 1 month of 5-minute bars
	@$(PYTHON) scripts/restore_database.py --tech-only $(ARGS)

.PHONY: restore-full-us
restore-full-us: $(READY) ## rebuild the database from scratch: all US stocks, 5 years daily
	@$(PYTHON) scripts/restore_database.py --full-us-stocks $(ARGS)

.PHONY: restore-russell2000
restore-russell2000: $(READY) ## rebuild from scratch: Russell 2000, 5 years daily (FILE=holdings.csv)
	@[ -n "$(FILE)" ] || { echo 'error: which tickers? make restore-russell2000 FILE=holdings.csv' >&2; exit 2; }
	@$(PYTHON) scripts/restore_database.py --russell2000 "$(FILE)" $(ARGS)

.PHONY: restore-schema
restore-schema: $(READY) ## rebuild with empty market tables: the schema only, no request
	@$(PYTHON) scripts/restore_database.py --skip-backfill $(ARGS)

.PHONY: restore-from-backup
restore-from-backup: $(READY) ## the newest backup that verifies, or BACKUP=path; the database is kept beside it
	@$(PYTHON) scripts/restore_database.py --from-backup $(if $(BACKUP),"$(BACKUP)") $(ARGS)

.PHONY: update
update: $(READY) ## bring the stored universes up to the last session, splits and corrections included
	@$(PYTHON) scripts/update_database.py $(ARGS)

.PHONY: plan
plan: $(READY) ## requests and duration of a daily backfill, no request sent (UNIVERSE=tech_sector)
	@$(PYTHON) scripts/02_backfill_daily.py --plan --universe "$(or $(UNIVERSE),tech_sector)" $(ARGS)

# ── one step of the pipeline each, options in ARGS="…"

.PHONY: create-universe
create-universe: $(READY) ## create or update a universe (ARGS="--universe tech_sector")
	@$(PYTHON) scripts/01_create_universe.py $(ARGS)

.PHONY: backfill-daily
backfill-daily: $(READY) ## daily bars and metrics of a universe (ARGS="--universe tech_sector --years 1")
	@$(PYTHON) scripts/02_backfill_daily.py $(ARGS)

.PHONY: backfill-intraday
backfill-intraday: $(READY) ## 5-minute bars of a universe (ARGS="--universe tech_sector --days 30")
	@$(PYTHON) scripts/03_backfill_intraday.py $(ARGS)

.PHONY: migrate-agents-schema
migrate-agents-schema: $(READY) ## give an older database the learning-lab columns of its agents
	@$(PYTHON) scripts/04_migrate_agents_schema.py $(ARGS)

.PHONY: fix-time-of-day
fix-time-of-day: $(READY) ## put the times of 5-minute bars of older databases right (ARGS="--dry-run")
	@$(PYTHON) scripts/05_fix_time_of_day.py $(ARGS)

# ── backups

.PHONY: backup
backup: $(READY) ## verified backup of the whole database, and of the generated scripts
	@$(PYTHON) scripts/backup_database.py $(ARGS)

.PHONY: backup-irreplaceable
backup-irreplaceable: $(READY) ## the small backup: what no download brings back
	@$(PYTHON) scripts/backup_database.py --irreplaceable-only $(ARGS)

.PHONY: backups
backups: $(READY) ## list the backups, newest first
	@$(PYTHON) scripts/backup_database.py --list $(ARGS)

.PHONY: verify-backups
verify-backups: $(READY) ## read and check every backup again
	@$(PYTHON) scripts/backup_database.py --verify $(ARGS)

# ── backups without thinking: one of the two, see docs/DATABASE.md

.PHONY: schedule-install
schedule-install: $(READY) ## let this machine back up by itself: launchd, or a systemd user timer
	@scripts/install_scheduled_backup.sh install $(ARGS)

.PHONY: schedule-status
schedule-status: $(READY) ## is it loaded, how did it end, how old is the newest verified backup
	@scripts/install_scheduled_backup.sh status

.PHONY: schedule-uninstall
schedule-uninstall: $(READY) ## remove the schedule; the backups stay
	@scripts/install_scheduled_backup.sh uninstall

.PHONY: sidecar-up
sidecar-up: $(READY) ## build and start the container that backs up by itself, wait until it is healthy
	@$(PYTHON) scripts/run_compose.py up --detach --build --wait $(ARGS)

.PHONY: sidecar-logs
sidecar-logs: $(READY) ## what the container says (ARGS=--follow)
	@$(PYTHON) scripts/run_compose.py logs $(ARGS)

.PHONY: sidecar-down
sidecar-down: $(READY) ## stop and remove the container; the backups stay
	@$(PYTHON) scripts/run_compose.py down $(ARGS)

# ── how it stands

.PHONY: status
status: $(READY) ## the database, its coverage, the backups, the schedule; exit code 1 when something needs you
	@$(PYTHON) scripts/show_status.py $(ARGS)

.PHONY: doctor
doctor: $(READY) ## what is wrong around the database: settings, disks, versions (ARGS=--online asks the vendor)
	@$(PYTHON) scripts/check_environment.py $(ARGS)

.PHONY: drill
drill: $(READY) ## rehearse the restore: the newest backup of each kind, checked row for row, timed
	@$(PYTHON) scripts/run_drill.py $(ARGS)

.PHONY: salvage
salvage: $(READY) ## read what is left of a damaged database and unite it with the newest good backup
	@$(PYTHON) scripts/salvage_database.py $(ARGS)

.PHONY: serve
serve: $(READY_TO_SERVE) ## a page on this machine with how it stands, read-only (PORT in .env)
	@$(PYTHON) scripts/serve_page.py $(ARGS)

# ── for developers

.PHONY: test
test: $(READY_TO_TEST) ## run the tests
	@$(VENV)/bin/pytest -n auto -m "not long" $(ARGS)

.PHONY: test-long
test-long: $(READY_TO_TEST) ## run the tests that take minutes: many kills, many damages
	@$(VENV)/bin/pytest -n auto -m long --timeout 3600 $(ARGS)

.PHONY: bench
bench: $(READY_TO_TEST) ## measure backups and the market side, as ratios in one run (minutes, gigabytes)
	@$(PYTHON) benchmarks/bench_backup.py
	@$(PYTHON) benchmarks/bench_market.py

.PHONY: lint
lint: $(READY_TO_TEST) ## check format, style, types, shell scripts and the Dockerfile
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@git ls-files '*.sh' .ci/run | xargs -r $(VENV)/bin/shellcheck
	@$(VENV)/bin/hadolint Dockerfile
