#!/bin/sh
# What launchd, systemd and cron start: run_scheduled.sh PROGRAM [options], with the Python of
# .venv. After an upgrade or removal of Python, `./db` makes .venv anew first; where it cannot, it
# says why, and the job failed. It asks for no newer packages: a backup does not wait for a package
# index.
set -eu

project=$(cd "$(dirname "$0")/.." && pwd -P)
python=$project/.venv/bin/python
case "$*" in
  *run_offsite.py*) packages=offsite ;;
  *--updates*) packages=market ;;
  *) packages=backup ;;
esac

# 20 milliseconds.
{ [ -e "$project/.venv/ready-$packages" ] && "$python" -Ic 'import pip' 2>/dev/null; } ||
  "$project/db" setup "$packages"
# The program gets the signals, and its exit code counts.
exec "$python" "$@"
