#!/usr/bin/env bash
# The tests as another person runs them: not root, another time zone, blanks in the paths of project
# and TMPDIR, and .pyc files, because nothing forbids them.
#
#   elsewhere.sh                               3.11 to 3.13 in containers, each in its own zone
#   elsewhere.sh PYTHON ZONE [pytest options]  one of them: no browser, no compose in its docker
#   elsewhere.sh here ZONE [pytest options]    this machine, engine, browser; not as root
set -euo pipefail

main() {
  case ${1:-all} in
    here) run_here "${@:2}" ;;
    all)
      run_in_container 3.11 Asia/Kolkata
      run_in_container 3.12 America/New_York
      run_in_container 3.13 Australia/Lord_Howe # summer time shifts by half an hour
      ;;
    *) run_in_container "$@" ;;
  esac
}

# ── on this machine

run_here() {
  local zone=$1 user=()
  shift
  home=$(mktemp -d) # not local: the trap runs after this function
  trap 'rm -rf "$home"' EXIT
  mkdir -p "$home/my projects/back test" "$home/a blank/tmp"
  list_files | tar --directory "$home/my projects/back test" --extract --file -
  (cd "$home/my projects/back test" && git init --quiet && git add --all)
  if [ "$(id -u)" = 0 ]; then
    # The engine's socket is open to its group, as for any user who was put into the group docker.
    user=(setpriv --reuid nobody --regid "$(id -g nobody)")
    if [ -S /var/run/docker.sock ]; then user+=(--groups "$(stat -c %g /var/run/docker.sock)"); else user+=(--clear-groups); fi
    # Root's own Python may lie where nobody else can read.
    if "${user[@]}" sh -c 'python3 -c "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"'; then
      chown -R "nobody:$(id -g nobody)" "$home"
      chmod 755 "$home"
    else
      echo "no Python 3.11 with venv for other users: the tests run as root" >&2
      user=()
    fi
  fi
  echo "── $zone, in ${home}/my projects/back test"
  cd "$home/my projects/back test"
  env -u PYTHONDONTWRITEBYTECODE HOME="$home" TZ="$zone" TMPDIR="$home/a blank/tmp" ARGS="$*" \
    ${user[@]+"${user[@]}"} make test
}

# ── in a container

run_in_container() {
  local python=$1 zone=${2:-Asia/Kolkata}
  shift $(($# > 1 ? 2 : 1))
  echo "── Python $python, $zone, in a container"
  build_image "$python"
  list_files | docker run --rm --interactive --env TZ="$zone" --env ARGS="$*" "$(image_of "$python")" bash -euc '
    folder="$HOME/my projects/back test"
    export TMPDIR="$HOME/a blank/tmp"
    mkdir -p "$folder" "$TMPDIR"
    cd "$folder"
    tar --extract --file -
    git init --quiet && git add --all
    exec make test
  '
}

image_of() { echo "backtest-elsewhere:$1"; }

# Debian's docker.io brings the command without the compose plugin.
build_image() {
  docker build --quiet --tag "$(image_of "$1")" --build-arg PYTHON="$1" - >/dev/null <<'DOCKERFILE'
ARG PYTHON
FROM python:${PYTHON}-slim
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends make git docker.io >/dev/null \
    && useradd --create-home --uid 4321 quant
USER quant
WORKDIR /home/quant
DOCKERFILE
}

# ── both

# A tar of what a commit would have, with what is not committed yet.
list_files() {
  (
    cd "$PROJECT"
    # shellcheck disable=SC2016 # the inner shell expands it
    git ls-files -z --cached --others --exclude-standard |
      xargs -0 sh -c 'for file; do if [ -f "$file" ]; then printf "%s\0" "$file"; fi; done' sh |
      tar --create --file - --null --files-from -
  )
}

PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
main "$@"
