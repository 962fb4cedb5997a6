# The front door: `make` lists every command, and each works from a fresh clone. What they are
# stands in `db`, a line each with its help: a new command is a new line there, and none here.
# Options go in ARGS="…". GNU make turns each failure into exit code 2; `./db COMMAND` is the same
# with the true one. Settings: .env (see .env.example). More: docs/DATABASE.md.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

COMMANDS := $(shell ./db help | sed -n 's/^  \.\/db \([a-z0-9-]*\).*/\1/p')

# make is silent about a variable that nothing reads, and would restore another backup than the one
# that was meant.
$(foreach name,args backup file from universe,$(if $(filter command,$(origin $(name))), \
	$(error $(name)= is not read: write $(shell echo $(name) | tr a-z A-Z)=)))

.PHONY: $(COMMANDS)
$(COMMANDS):
	@./db $@ $(FIRST) $(ARGS)

help: FIRST = make
# What a user writes as a variable comes from the environment of the recipe, so that no character in
# it is special.
restore-from-backup: FIRST = $(if $(BACKUP),"$$BACKUP")
restore-russell2000: FIRST = $(if $(FILE),"$$FILE")
plan: FIRST = $(if $(UNIVERSE),--universe "$$UNIVERSE")

# The tests' packages, without running the tests.
.venv/ready-to-test:
	@./db setup dev
