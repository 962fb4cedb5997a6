#!/usr/bin/env bash
# The host's own schedule: launchd on macOS, systemd user timers on Linux, else crontab lines. One
# job makes the backups, another one updates the market data (where there is an API key, and
# UPDATE_DELAY_MINUTES is not empty), and a process that stays sends copies off this machine (where
# OFFSITE is set).
#
#   install_scheduled_backup.sh install [--anyway]   write and load the jobs; each runs at once if it is due
#   install_scheduled_backup.sh status               loaded? last exit code? newest verified backup?
#   install_scheduled_backup.sh run                  start the backups' job now
#   install_scheduled_backup.sh uninstall            unload and remove the jobs; backups stay
#
# Settings come from .env. Exit codes: 0 all is well, 1 it is not, 2 wrong usage or settings.
set -euo pipefail

PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PYTHON=$PROJECT/.venv/bin/python
DOMAIN=gui/$UID
UNIT_DIR=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user

main() {
  [ -x "$PYTHON" ] || fail "there is no $PYTHON" "make setup"
  local scheduler
  scheduler=$(find_scheduler)
  case ${1:-} in install | status | run | uninstall) OPTION='' MARK='' PROJECT_MARK=$(render mark) ;; esac
  case ${1:-} in
    install) install_all "$scheduler" "${2:-}" ;;
    status) status_all "$scheduler" ;;
    run) use_job backup; "run_$scheduler" ;;
    uninstall) uninstall_all "$scheduler" ;;
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
}

# The names of a job in launchd and systemd, what systemd starts it by, and what its programs are
# called with. Another checkout on this machine may have the plain names: then the path's mark is
# part of them.
use_job() {
  OPTION=
  case $1 in
    update) OPTION=--updates ;;
    offsite) OPTION=--offsite ;;
  esac
  MARK=$PROJECT_MARK
  name_job "$1"
  if ! [ -f "$PLIST" ] && ! [ -f "$UNIT_DIR/$UNIT.service" ]; then
    MARK=
    name_job "$1"
    belongs_elsewhere || return 0
    MARK=$PROJECT_MARK
    name_job "$1"
  fi
}

name_job() {
  UNIT=ai-backtest-$1${MARK:+-$MARK}
  LABEL=com.aibacktest.$1${MARK:+.$MARK}
  PLIST=$HOME/Library/LaunchAgents/$LABEL.plist
  TRIGGER=$UNIT.timer
  [ "$1" != offsite ] || TRIGGER=$UNIT.service
}

# Whether a job of this name starts the program of another checkout, and that program is there. One
# that is gone was perhaps this checkout before it moved.
belongs_elsewhere() {
  local file program
  for file in "$PLIST" "$UNIT_DIR/$UNIT.service"; do
    [ -f "$file" ] || continue
    program=$(sed -n 's/^ExecStart="[^"]*" "\([^"]*\)".*/\1/p
      s/^[[:space:]]*<string>\(.*\/scripts\/run_[a-z]*\.py\)<\/string>$/\1/p' "$file" |
      sed 's/%%/%/g; s/[$][$]/$/g; s/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g')
    [ -n "$program" ] && [ -f "$program" ] && [ "${program%/scripts/*}" != "$PROJECT" ] && return 0
  done
  return 1
}

lives() { [ "$OPTION" = --offsite ]; }

install_all() {
  use_job backup
  if [ "$1" = launchd ] && [ "$2" != --anyway ]; then render check-macos; else render check; fi
  make_folders
  render warnings
  local extra
  extra=$(render packages)
  [ -z "$extra" ] || "$PROJECT/db" setup "$extra" >/dev/null
  "install_$1" "$2"

  install_where_wanted "$1" "$2" update market "market data is not updated by itself"
  install_where_wanted "$1" "$2" offsite offsite "no copies leave this machine"
}

# The job of the backups needs few packages, each of these some more. What is no longer wanted goes.
install_where_wanted() {
  local reason
  use_job "$3"
  reason=$(render wanted)
  if [ "$reason" = yes ]; then
    render check
    "$PROJECT/db" setup "$4" >/dev/null
    "install_$1" "$2"
  else
    if is_installed "$1"; then "uninstall_$1"; fi
    echo "$5: $reason"
  fi
}

status_all() {
  local bad=0 name
  use_job backup
  "status_$1" || bad=1
  for name in update offsite; do
    use_job "$name"
    if [ "$(render wanted)" = yes ] || is_installed "$1"; then "status_$1" || bad=1; fi
  done
  return $bad
}

uninstall_all() {
  local name
  for name in offsite update; do
    use_job "$name"
    if is_installed "$1"; then "uninstall_$1"; fi
  done
  use_job backup
  "uninstall_$1"
}

is_installed() {
  case $1 in
    launchd) [ -f "$PLIST" ] ;;
    systemd) [ -f "$UNIT_DIR/$TRIGGER" ] ;;
    cron) crontab -l 2>/dev/null | grep -qF "$(render marker)" ;;
  esac
}

fail() {
  printf 'error: %s\n       next: %s\n' "$1" "$2" >&2
  exit 1
}

find_scheduler() {
  if command -v launchctl >/dev/null; then
    echo launchd
  elif systemctl --user show-environment >/dev/null 2>&1; then
    echo systemd
  elif systemctl show --property=Version >/dev/null 2>&1; then
    fail "systemd runs here, and no session of user $(id -un) answers" "log in as this user, not by su or sudo"
  else
    echo cron
  fi
}

render() {
  "$PYTHON" "$PROJECT/scripts/render_schedule.py" "$1" ${OPTION:+"$OPTION"} ${MARK:+--mark "$MARK"}
}

# An installed file is whole-old or whole-new.
write_file() {
  mkdir -p "$(dirname "$2")"
  render "$1" >"$2.new"
  mv "$2.new" "$2"
}

make_folders() {
  local folder
  render folders | while IFS= read -r folder; do (umask 077 && mkdir -p "$folder"); done
}

# A job that was written from a folder that has moved since, or from older settings, would fail in
# silence.
is_current() { render "$1" | cmp -s - "$2"; }

forget() { lives || "$PYTHON" "$PROJECT/scripts/run_scheduler.py" --forget ${OPTION:+"$OPTION"}; }

report_newest() {
  if lives; then
    "$PYTHON" "$PROJECT/scripts/run_offsite.py" health
  else
    "$PYTHON" "$PROJECT/scripts/run_scheduler.py" --newest ${OPTION:+"$OPTION"}
  fi
}

describe_times() { if lives; then echo "it stays, and sends what is committed"; else echo "$1, and at its times"; fi; }

# ── launchd

install_launchd() {
  write_file launchd "$PLIST"
  launchctl bootout "$DOMAIN/$LABEL" 2>/dev/null || true
  launchctl enable "$DOMAIN/$LABEL" 2>/dev/null || true
  load_launchd || fail "launchd did not take $PLIST" "make schedule-status, and look at Console.app"
  echo "installed $PLIST: $(describe_times "at login when it is overdue")"
}

# bootout returns before the old job is gone, so the first bootstrap may fail; older systems know
# only load, which reports success even when it fails.
load_launchd() {
  launchctl bootstrap "$DOMAIN" "$PLIST" 2>/dev/null && return
  sleep 1
  launchctl bootstrap "$DOMAIN" "$PLIST" && return
  launchctl load -w "$PLIST" && is_loaded_launchd
}

is_loaded_launchd() {
  launchctl print "$DOMAIN/$LABEL" >/dev/null 2>&1 || launchctl list "$LABEL" >/dev/null 2>&1
}

# Where a signal ended the last run, launchd says that it never exited, and names the signal.
last_exit_launchd() {
  local said
  said=$(launchctl print "$DOMAIN/$LABEL" 2>/dev/null || launchctl list "$LABEL" 2>/dev/null || true)
  case $said in
    *"last terminating signal = "*) sed -n 's/.*last terminating signal = /signal /p' <<<"$said" ;;
    *) sed -n -E 's/.*(last exit code|"LastExitStatus") = ([^;]*);?/\2/p' <<<"$said" | head -n 1 ;;
  esac
}

status_launchd() {
  local bad=0 code
  [ -f "$PLIST" ] || fail "not installed: there is no $PLIST" "make schedule-install"
  is_current launchd "$PLIST" || bad=1
  [ $bad = 0 ] || echo "moved or changed: $PLIST does not fit this folder and .env; run make schedule-install"
  if is_loaded_launchd; then echo "loaded: $LABEL"; else bad=1; echo "not loaded: run make schedule-install"; fi
  code=$(last_exit_launchd)
  echo "last exit code: ${code:-never ran}"
  case $code in "" | 0 | *never*) ;; *) bad=1 ;; esac
  report_newest || bad=1
  return $bad
}

run_launchd() { launchctl kickstart "$DOMAIN/$LABEL" || launchctl start "$LABEL"; }

uninstall_launchd() {
  launchctl bootout "$DOMAIN/$LABEL" 2>/dev/null || launchctl unload -w "$PLIST" 2>/dev/null || true
  rm -f "$PLIST"
  forget
  echo "removed $PLIST; the backups stay where they are"
}

# ── systemd

install_systemd() {
  write_file service "$UNIT_DIR/$UNIT.service"
  lives || write_file timer "$UNIT_DIR/$TRIGGER"
  systemctl --user daemon-reload
  systemctl --user enable "$TRIGGER"
  systemctl --user restart "$TRIGGER"
  lives || systemctl --user start --no-block "$UNIT.service"
  echo "installed $UNIT_DIR/$TRIGGER: $(describe_times "at once when it is due")"
  lingers || echo "note: it runs only while you are logged in; to change that: loginctl enable-linger"
}

lingers() { [ "$(loginctl show-user "$UID" --property=Linger --value 2>/dev/null)" = yes ]; }

status_systemd() {
  local bad=0 code
  [ -f "$UNIT_DIR/$TRIGGER" ] || fail "not installed: there is no $UNIT_DIR/$TRIGGER" "make schedule-install"
  is_current service "$UNIT_DIR/$UNIT.service" || bad=1
  lives || is_current timer "$UNIT_DIR/$TRIGGER" || bad=1
  [ $bad = 0 ] || echo "moved or changed: the units do not fit this folder and .env; run make schedule-install"
  if systemctl --user is-active --quiet "$TRIGGER"; then
    echo "loaded: $TRIGGER"
  else
    bad=1
    echo "not loaded: run make schedule-install"
  fi
  code=$(systemctl --user show "$UNIT.service" --property=ExecMainStatus --value)
  echo "last exit code: ${code:-never ran}"
  [ "${code:-0}" = 0 ] || bad=1
  report_newest || bad=1
  return $bad
}

run_systemd() { systemctl --user start "$UNIT.service"; }

uninstall_systemd() {
  systemctl --user disable --now "$TRIGGER" 2>/dev/null ||
    ! systemctl --user is-enabled --quiet "$TRIGGER" 2>/dev/null ||
    fail "systemd did not disable $TRIGGER" "systemctl --user disable --now $TRIGGER"
  rm -f "$UNIT_DIR/$UNIT.timer" "$UNIT_DIR/$UNIT.service"
  systemctl --user daemon-reload
  forget
  echo "removed $TRIGGER; the backups stay where they are"
}

# ── neither

install_cron() {
  command -v crontab >/dev/null || fail "there is no launchd, no systemd and no cron here" "make sidecar-up"
  echo "neither launchd nor a systemd user session here; this line goes into your crontab:"
  render crontab
  if [ "$1" != --anyway ]; then
    [ -t 0 ] || fail "nothing was installed: nobody here can be asked" "make schedule-install ARGS=--anyway"
    local answer
    read -r -p "add it? [y/N] " answer
    case $answer in [yY]*) ;; *) fail "nothing was installed" "make schedule-install, or make sidecar-up" ;; esac
  fi
  { other_lines; render crontab; } | crontab -
  echo "installed in your crontab; what fails, cron mails to $(id -un)"
}

# The crontab without this job of this checkout.
other_lines() { crontab -l 2>/dev/null | grep -vF "$(render marker)" || true; }

status_cron() {
  local bad=0
  if crontab -l 2>/dev/null | grep -qF "$(render crontab)"; then
    echo "loaded: crontab"
  else
    bad=1
    echo "not loaded: run make schedule-install"
  fi
  report_newest || bad=1
  return $bad
}

run_cron() { "$PYTHON" "$PROJECT/scripts/run_scheduler.py" --once ${OPTION:+"$OPTION"}; }

uninstall_cron() {
  if command -v crontab >/dev/null; then other_lines | crontab -; fi
  forget
  echo "removed from your crontab: $UNIT; the backups stay where they are"
  ! lives || echo "the process that runs now goes on until it is ended: pkill -f 'run_offsite.py watch'"
}

main "$@"
