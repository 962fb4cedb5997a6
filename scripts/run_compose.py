#!/usr/bin/env python3
"""Call `docker compose`, or docker-compose 1.28 and later, with what the compose file cannot work
out: folders, owner and time zone of the host. `update` builds the images anew on the newest base,
then starts what they are for."""

import os
import sys
from collections.abc import Sequence

from backtestdb import console
from backtestdb.config import load_settings
from backtestdb.scheduling.compose import (
    keep_for_compose,
    make_environment,
    prepare_folders,
    remove_earlier_projects,
    show_why_not,
    verify_database,
)
from backtestdb.scheduling.compose_command import compose, verify_engine
from backtestdb.scheduling.health import remove_liveness
from backtestdb.scheduling.sidecar import find_owner

UP = ("up", "--detach", "--build", "--wait")


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(f"{__doc__}\n\nusage: run_compose.py ARGUMENTS OF docker compose", flush=True)
        return console.DONE

    settings = load_settings()
    verify_engine()
    if arguments[0] == "update":
        code = main(["build", "--pull"])
        return code or main([*UP, *arguments[1:]])

    owner = find_owner(settings, os.environ)
    if arguments[0] in {"up", "run"}:
        prepare_folders(settings, owner)

    variables = make_environment(settings, owner)
    if arguments[0] == "up":
        verify_database(settings)
        remove_earlier_projects(variables)
        keep_for_compose(variables)

    if arguments[0] == "down":
        # What once ran goes, whatever is set now.
        variables["COMPOSE_PROFILES"] = "update,offsite"

    code = compose(variables, *arguments)
    if code and arguments[0] == "up":
        show_why_not(variables)
    if arguments[0] == "down" and code == 0:
        remove_liveness(settings.backup_dir, settings.database_path)

    return code


if __name__ == "__main__":
    console.run(main)
