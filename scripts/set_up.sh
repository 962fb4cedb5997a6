#!/bin/sh
# Find a Python that fits, and let it make .venv with one set of packages: set_up.sh
# backup|offsite|market|…|dev. `./db` and `make` call this when .venv does not fit;
# PYTHON3=/path/to/python3 names the interpreter to take.
set -eu

# 3.11 to 3.14 are what the lock files and the tests cover; a later one is better than none.
fits='import sys, ensurepip, sqlite3, ssl, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'
later='import sys, ensurepip, sqlite3, ssl, venv; sys.exit(sys.version_info[:2] <= (3, 14))'
recent='import sys; sys.exit(sys.version_info[:2] < (3, 11))'

# The PATH of cron and launchd leaves out where Homebrew and python.org install.
PATH=$PATH:/usr/local/bin:/opt/homebrew/bin

main() {
  python3=$(find_python) || fail_without_python
  exec "$python3" "$(dirname "$0")/install_packages.py" "$@"
}

find_python() {
  if [ -n "${PYTHON3:-}" ]; then
    first_that "$fits" "$PYTHON3" || first_that "$later" "$PYTHON3"
  else
    first_that "$fits" python3 python3.14 python3.13 python3.12 python3.11 || first_that "$later" python3
  fi
}

first_that() {
  test=$1
  shift
  for candidate in "$@"; do
    if "$candidate" -c "$test" 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

fail_without_python() {
  if found=$(first_that "$recent" "${PYTHON3:-python3}" python3.14 python3.13 python3.12 python3.11); then
    version=$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    # Debian and Ubuntu keep a part of the standard library in a package of its own.
    lacking=$("$found" -c 'import ensurepip, sqlite3, ssl, venv' 2>&1 | sed -n '$s/.*: //p')
    fail "$found is Python $version without its whole standard library: ${lacking:-it cannot make a virtual environment}" \
      "$(install_command "$version")"
  fi
  what="there is no Python 3.11 to 3.14 on PATH"
  [ -z "${PYTHON3:-}" ] || what="PYTHON3=$PYTHON3 is no Python 3.11 or newer"
  if version=$(python3 -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null); then
    what="$what (python3 is $version)"
  fi
  fail "$what" "$(install_command 3.13)"
}

# The package, by its name in the package manager that this machine has.
install_command() {
  if command -v apt-get >/dev/null; then
    # The release's own Python is python3; a version is named only where there is such a package.
    if apt-cache show "python$1-venv" >/dev/null 2>&1; then
      echo "sudo apt install python$1 python$1-venv"
    else
      echo "sudo apt install python3 python3-venv"
    fi
  elif command -v brew >/dev/null; then
    echo "brew install python@$1"
  elif command -v dnf >/dev/null; then
    echo "sudo dnf install python$1"
  elif command -v zypper >/dev/null; then
    echo "sudo zypper install python$(echo "$1" | tr -d .)"
  elif command -v pacman >/dev/null; then
    echo "sudo pacman -S python"
  elif command -v apk >/dev/null; then
    echo "sudo apk add python3"
  else
    echo "install Python $1 from python.org, or name one with PYTHON3=/path/to/python3"
  fi
}

fail() {
  printf 'error: %s\n       next: %s\n' "$1" "$2" >&2
  exit 1
}

main "$@"
