#!/usr/bin/env bash
# The host's own schedule for backups: launchd on macOS, a systemd user timer on Linux, else a crontab line.
#
#   install_scheduled_backup.sh install [--anyway]   write the job and load it; it runs at once if one is due
#   install_scheduled_backup.sh status               loaded? last exit code? newest verified backup?
#   install_scheduled_backup.sh run                  start the job now
#   install_scheduled_backup.sh uninstall            unload and remove the job; backups stay
#
# Settings come from .env. Exit codes: 0 all is well, 1 it is not, 2 wrong usage or settings.
set -euo pipefail

PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PYTHON=$PROJECT/.venv/bin/python
LABEL=com.aibacktest.backup
PLIST=$HOME/Library/LaunchAgents/$LABEL.plist
DOMAIN=gui/$UID
UNIT_DIR=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
UNIT=ai-backtest-backup

main() {
  [ -x "$PYTHON" ] || fail "there is no $PYTHON" "make setup"
  local scheduler
  scheduler=$(find_scheduler)
  case ${1:-} in
    install | status | run | uninstall) "${1}_$scheduler" "${2:-}" ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
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
  else
    echo cron
  fi
}

render() { "$PYTHON" "$PROJECT/scripts/render_schedule.py" "$1"; }

# An installed file is whole-old or whole-new.
write_file() {
  mkdir -p "$(dirname "$2")"
  render "$1" >"$2.new"
  mv "$2.new" "$2"
}

make_backup_dir() {
  local folder
  folder=$(render backup-dir)
  (umask 077 && mkdir -p "$folder")
}

# A job that was written from a folder that has moved since, or from older settings, would fail in silence.
is_current() { render "$1" | cmp -s - "$2"; }

forget() { "$PYTHON" "$PROJECT/scripts/run_scheduler.py" --forget; }

report_newest() { "$PYTHON" "$PROJECT/scripts/run_scheduler.py" --newest; }

# ── launchd

install_launchd() {
  if [ "$1" = --anyway ]; then render check; else render check-macos; fi
  make_backup_dir
  write_file launchd "$PLIST"
  launchctl bootout "$DOMAIN/$LABEL" 2>/dev/null || true
  launchctl enable "$DOMAIN/$LABEL" 2>/dev/null || true
  load_launchd || fail "launchd did not take $PLIST" "make schedule-status, and look at Console.app"
  echo "installed $PLIST: a backup at login when one is overdue, and at the times in .env"
}

# bootout returns before the old job is gone, so the first bootstrap may fail; older systems know only load,
# which reports success even when it fails.
load_launchd() {
  launchctl bootstrap "$DOMAIN" "$PLIST" 2>/dev/null && return
  sleep 1
  launchctl bootstrap "$DOMAIN" "$PLIST" && return
  launchctl load -w "$PLIST" && is_loaded_launchd
}

is_loaded_launchd() {
  launchctl print "$DOMAIN/$LABEL" >/dev/null 2>&1 || launchctl list "$LABEL" >/dev/null 2>&1
}

last_exit_launchd() {
  { launchctl print "$DOMAIN/$LABEL" 2>/dev/null || launchctl list "$LABEL" 2>/dev/null || true; } |
    sed -n -E 's/.*(last exit code|"LastExitStatus") = ([^;]*);?/\2/p' | head -n 1
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
  render check
  make_backup_dir
  write_file service "$UNIT_DIR/$UNIT.service"
  write_file timer "$UNIT_DIR/$UNIT.timer"
  systemctl --user daemon-reload
  systemctl --user enable "$UNIT.timer"
  systemctl --user restart "$UNIT.timer"
  systemctl --user start --no-block "$UNIT.service"
  echo "installed $UNIT_DIR/$UNIT.timer: a backup at once when one is overdue, and at the times in .env"
  lingers || echo "note: it runs only while you are logged in; to change that: loginctl enable-linger"
}

lingers() { [ "$(loginctl show-user "$UID" --property=Linger --value 2>/dev/null)" = yes ]; }

status_systemd() {
  local bad=0 code
  [ -f "$UNIT_DIR/$UNIT.timer" ] || fail "not installed: there is no $UNIT_DIR/$UNIT.timer" "make schedule-install"
  { is_current service "$UNIT_DIR/$UNIT.service" && is_current timer "$UNIT_DIR/$UNIT.timer"; } || bad=1
  [ $bad = 0 ] || echo "moved or changed: the units do not fit this folder and .env; run make schedule-install"
  if systemctl --user is-active --quiet "$UNIT.timer"; then
    echo "loaded: $UNIT.timer"
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
  systemctl --user disable --now "$UNIT.timer" 2>/dev/null || true
  rm -f "$UNIT_DIR/$UNIT.timer" "$UNIT_DIR/$UNIT.service"
  systemctl --user daemon-reload
  forget
  echo "removed $UNIT.timer; the backups stay where they are"
}

# ── neither

install_cron() {
  render check
  make_backup_dir
  echo "neither launchd nor a systemd user session here; add this line with: crontab -e"
  render crontab
}

status_cron() {
  local bad=0
  if crontab -l 2>/dev/null | grep -qF "$(render crontab)"; then
    echo "loaded: crontab"
  else
    bad=1
    echo "not loaded: make schedule-install prints the line for crontab -e"
  fi
  report_newest || bad=1
  return $bad
}

run_cron() { "$PYTHON" "$PROJECT/scripts/run_scheduler.py" --once; }

uninstall_cron() { echo "remove the line with run_scheduler.py with: crontab -e"; }

main "$@"
