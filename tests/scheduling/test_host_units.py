"""The host's own schedule: the files that are written, and the calls that load them, in a project
whose path has everything that paths may have. launchctl and systemctl are stand-ins that record
their calls."""

import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from backtestdb.backups.catalogue import load_catalogue
from backtestdb.config import PROJECT_DIR, load_settings
from backtestdb.errors import ProjectError
from backtestdb.files import exclusive_lock
from backtestdb.names import make_mark, systemd_unit
from backtestdb.offsite.liveness import target_folder
from backtestdb.scheduling.host_units import (
    Job,
    make_crontab_line,
    make_plist,
    make_service,
    make_timer,
    verify_folders_are_open,
)
from backup_tools import make_platform_database

LABEL = "com.aibacktest.backup"
DOMAIN = f"gui/{os.getuid()}"
LAUNCHCTL = """#!/usr/bin/env bash
echo "$*" >>"$0.calls"
refuses() { [ -e "$0.refuses-$1" ]; }
case $1 in
  bootstrap) refuses bootstrap && exit 5; touch "$0.loaded" ;;
  load) refuses load || touch "$0.loaded" ;;
  bootout | unload) [ -e "$0.loaded" ] || exit 3; rm "$0.loaded" ;;
  print) [ -e "$0.loaded" ] || exit 113; refuses bootstrap && exit 64
    echo "	last exit code = $(cat "$0.code")" ;;
  list) [ -e "$0.loaded" ] || exit 113; echo "	\\"LastExitStatus\\" = $(cat "$0.code");" ;;
esac
"""
SYSTEMCTL = """#!/usr/bin/env bash
echo "$*" >>"$0.calls"
[ ! -e "$0.refuses-all" ] || exit 1
case $2 in
  enable | restart) touch "$0.loaded" ;;
  disable) [ ! -e "$0.refuses-disable" ] || exit 1; rm -f "$0.loaded" ;;
  is-enabled) [ -e "$0.loaded" ] ;;
  is-active) [ -e "$0.loaded" ] ;;
  show) echo 0 ;;
esac
"""
CRONTAB = """#!/usr/bin/env bash
case $1 in -l) cat "$0.table" ;; -) new=$(cat); printf '%s\\n' "$new" >"$0.table" ;; esac
"""


@dataclass
class Installation:
    """A project in a home folder of its own; `tools` comes first on PATH."""

    home: Path
    project: Path
    tools: Path

    @property
    def plist(self) -> Path:
        return self.home / "Library" / "LaunchAgents" / f"{LABEL}.plist"

    @property
    def units(self) -> Path:
        return self.home / ".config" / "systemd" / "user"

    @property
    def backup_dir(self) -> Path:
        return self.home / "back & ups"

    def job(self) -> Job:
        return Job(load_settings({}, self.project / ".env"), self.project)

    def run(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        environment = {"HOME": str(self.home), "PATH": f"{self.tools}:/usr/bin:/bin", **changes}
        script = self.project / "scripts" / "install_scheduled_backup.sh"
        return subprocess.run(
            [script, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def calls(self, tool: str) -> list[str]:
        path = self.tools / f"{tool}.calls"
        calls = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return calls

    def refuse(self, tool: str, what: str) -> None:
        (self.tools / f"{tool}.refuses-{what}").touch()


def install(tmp_path: Path, *tools: str, inside: str = "my & <pro>ject 100%") -> Installation:
    home = tmp_path / "home"
    made = Installation(home, home / inside, tmp_path / "tools")
    shutil.copytree(
        PROJECT_DIR / "scripts",
        made.project / "scripts",
        ignore=shutil.ignore_patterns("__pycache__", "market", "rebuild"),
    )
    for name in ("sql", "locks"):
        shutil.copytree(PROJECT_DIR / name, made.project / name)
    shutil.copy(PROJECT_DIR / "db", made.project / "db")
    (made.project / ".venv").symlink_to(sys.prefix)
    database = make_platform_database(made.project / "backtesting.db", bars=10)
    (made.project / ".env").write_text(
        f"DATABASE_PATH='{database}'\nBACKUP_DIR='{made.backup_dir}'\nBACKUP_TIME=03:20\n"
    )
    made.tools.mkdir()
    scripts = {"launchctl": LAUNCHCTL, "systemctl": SYSTEMCTL, "loginctl": "#!/bin/sh\necho no\n"}
    for name in tools:
        (made.tools / name).write_text(scripts[name])
        (made.tools / name).chmod(0o755)
    (made.tools / "launchctl.code").write_text("0")
    return made


@pytest.fixture
def mac(tmp_path: Path) -> Installation:
    return install(tmp_path, "launchctl")


@pytest.fixture
def linux(tmp_path: Path) -> Installation:
    return install(tmp_path, "systemctl", "loginctl")


def test_plist_is_whole_absolute_and_at_the_times_of_the_settings(mac: Installation) -> None:
    values = plistlib.loads(make_plist(mac.job(), mac.home).encode())
    assert values["ProgramArguments"] == [
        f"{mac.project}/scripts/run_scheduled.sh",
        f"{mac.project}/scripts/run_scheduler.py",
        "--once",
    ]
    assert values["WorkingDirectory"] == str(mac.project)
    # Not on the backups' disk, which may be away.
    assert values["StandardOutPath"] == "/dev/null"
    assert values["StandardErrorPath"] == f"{mac.home}/Library/Logs/{LABEL}.log"
    assert values["StartCalendarInterval"] == [{"Hour": 3, "Minute": 20}, {"Minute": 20}]
    assert (values["Label"], values["RunAtLoad"], values["Nice"]) == (LABEL, True, 10)
    assert (values["ProcessType"], values["LowPriorityIO"]) == ("Background", True)
    paths = [*values["ProgramArguments"][:2], values["WorkingDirectory"], values["StandardOutPath"]]
    assert all(Path(path).is_absolute() for path in paths)
    assert Path(paths[0]).exists()
    assert Path(paths[1]).exists()


def test_install_loads_the_job_in_the_right_order(mac: Installation) -> None:
    done = mac.run("install")
    assert done.returncode == 0, done.stderr
    assert mac.calls("launchctl") == [
        f"bootout {DOMAIN}/{LABEL}",
        f"enable {DOMAIN}/{LABEL}",
        f"bootstrap {DOMAIN} {mac.plist}",
    ]
    assert mac.plist.read_text() == make_plist(mac.job(), mac.home)
    assert [path.name for path in mac.plist.parent.iterdir()] == [mac.plist.name]
    assert mac.backup_dir.stat().st_mode & 0o777 == 0o700


def test_install_falls_back_to_load_when_bootstrap_fails(mac: Installation) -> None:
    mac.refuse("launchctl", "bootstrap")
    done = mac.run("install")
    assert done.returncode == 0, done.stderr
    assert mac.calls("launchctl") == [
        f"bootout {DOMAIN}/{LABEL}",
        f"enable {DOMAIN}/{LABEL}",
        f"bootstrap {DOMAIN} {mac.plist}",
        f"bootstrap {DOMAIN} {mac.plist}",
        f"load -w {mac.plist}",
        f"print {DOMAIN}/{LABEL}",
        f"list {LABEL}",
    ]
    assert "last exit code: 0" in mac.run("status").stdout


def test_install_that_launchd_does_not_take_fails_with_advice(mac: Installation) -> None:
    mac.refuse("launchctl", "bootstrap")
    mac.refuse("launchctl", "load")  # which says that all went well
    done = mac.run("install")
    assert done.returncode == 1
    assert "launchd did not take" in done.stderr
    assert "next:" in done.stderr


def test_job_runs_without_path_and_status_tells_how_it_went(mac: Installation) -> None:
    assert mac.run("status").returncode == 1
    assert mac.run("install").returncode == 0
    status = mac.run("status")
    assert (status.returncode, "no verified full backup" in status.stdout) == (1, True)
    command = plistlib.loads(mac.plist.read_bytes())["ProgramArguments"]
    subprocess.run(
        command, env={"HOME": str(mac.home)}, cwd="/", check=True, stdout=subprocess.DEVNULL
    )
    assert len([backup for backup in load_catalogue(mac.backup_dir) if backup.is_verified]) == 2
    status = mac.run("status")
    assert status.returncode == 0, status.stdout + status.stderr
    assert [line.split(" ")[0] for line in status.stdout.splitlines()] == ["loaded:", "last", "the"]


def make_well(mac: Installation) -> None:
    assert mac.run("install").returncode == 0
    command = [
        mac.project / ".venv/bin/python",
        mac.project / "scripts" / "run_scheduler.py",
        "--once",
    ]
    subprocess.run(command, env={"HOME": str(mac.home)}, check=True, stdout=subprocess.DEVNULL)


def test_status_tells_a_failed_run_a_lost_job_and_a_moved_project(mac: Installation) -> None:
    make_well(mac)
    assert mac.run("status").returncode == 0
    (mac.tools / "launchctl.code").write_text("1")
    failed = mac.run("status")
    assert (failed.returncode, "last exit code: 1" in failed.stdout) == (1, True)
    (mac.tools / "launchctl.code").write_text(
        "(never exited)\n\tlast terminating signal = Killed: 9"
    )
    killed = mac.run("status")
    assert (killed.returncode, "signal Killed: 9" in killed.stdout) == (1, True)
    (mac.tools / "launchctl.code").write_text("0")
    moved = mac.plist.read_text().replace("/scripts/", "/old/scripts/")
    mac.plist.write_text(moved)
    told = mac.run("status")
    assert (told.returncode, "moved or changed" in told.stdout) == (1, True)
    (mac.tools / "launchctl.loaded").unlink()
    lost = mac.run("status")
    assert (lost.returncode, "not loaded" in lost.stdout) == (1, True)


def test_uninstall_unloads_and_removes_the_job_and_keeps_the_backups(mac: Installation) -> None:
    make_well(mac)
    mac.calls("launchctl")
    assert mac.run("uninstall").returncode == 0
    assert mac.calls("launchctl") == [f"bootout {DOMAIN}/{LABEL}"]
    assert not mac.plist.exists()
    assert load_catalogue(mac.backup_dir)
    assert mac.run("uninstall").returncode == 0


def test_run_kicks_the_job(mac: Installation) -> None:
    assert mac.run("run").returncode == 0
    assert mac.calls("launchctl") == [f"kickstart {DOMAIN}/{LABEL}"]


@pytest.mark.parametrize(
    "folder", ["Documents/project", "Desktop", "Library/Mobile Documents/x/project"]
)
def test_folders_that_macos_keeps_from_jobs_are_refused(tmp_path: Path, folder: str) -> None:
    mac = install(tmp_path, "launchctl", inside=folder)
    done = mac.run("install")
    assert done.returncode == 1
    assert f"macOS keeps background jobs out of {mac.project}" in done.stderr
    assert "Full Disk Access" in done.stderr
    assert mac.calls("launchctl") == []
    assert not mac.plist.exists()
    assert mac.run("install", "--anyway").returncode == 0


def test_disk_that_can_be_taken_off_is_refused_on_macos_until_access_was_given(
    mac: Installation,
) -> None:
    job = mac.job()
    away = replace(job, settings=replace(job.settings, backup_dir=Path("/Volumes/Backup/x")))
    with pytest.raises(ProjectError, match="keeps background jobs out of /Volumes/Backup/x"):
        verify_folders_are_open(away, mac.home)
    # The access is given to Python, so launchd starts that and no shell.
    started = plistlib.loads(make_plist(away, mac.home).encode())["ProgramArguments"]
    assert started == [str(job.python), str(job.program), "--once"]


def test_two_checkouts_have_two_timers_and_each_removes_its_own(linux: Installation) -> None:
    other = replace(linux, project=linux.home / "other")
    shutil.copytree(linux.project, other.project, symlinks=True)
    env_file = other.project / ".env"
    env_file.write_text(
        env_file.read_text().replace(
            str(linux.project / "backtesting.db"), str(other.project / "backtesting.db")
        )
    )
    for each in (linux, other):
        assert each.run("install").returncode == 0
    marked = systemd_unit("backup", make_mark(other.project))
    names = {
        f"{name}.{kind}" for name in ("ai-backtest-backup", marked) for kind in ("service", "timer")
    }
    assert {unit.name for unit in linux.units.iterdir()} == names
    assert other.run("uninstall").returncode == 0
    assert {unit.name for unit in linux.units.iterdir()} == {
        name for name in names if marked not in name
    }


def test_setting_that_only_the_environment_has_is_refused(mac: Installation) -> None:
    done = mac.run("install", BACKUP_TIME="04:00")
    assert done.returncode == 2
    assert "BACKUP_TIME comes from the environment" in done.stderr
    assert mac.calls("launchctl") == []


def test_wrong_verb_is_wrong_usage_and_help_is_help(mac: Installation) -> None:
    assert mac.run("instal").returncode == 2
    helped = mac.run("--help")
    assert helped.returncode == 0
    assert "uninstall" in helped.stdout


def test_systemd_units_pass_their_own_verification(linux: Installation, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("systemd-analyze is not installed")
    assert linux.run("install").returncode == 0
    units = sorted(linux.units.iterdir())
    assert [unit.name for unit in units] == [
        "ai-backtest-backup.service",
        "ai-backtest-backup.timer",
    ]
    done = subprocess.run(
        [analyze, "verify", "--user", *units],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(linux.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    # It looks at the system's units as well, some of which complain about a runtime folder with a
    # long name.
    said = [line for line in (done.stdout + done.stderr).splitlines() if "ai-backtest" in line]
    assert (done.returncode, said) == (0, [])


def test_systemd_units_hold_absolute_paths_and_the_times_of_the_settings(
    linux: Installation,
) -> None:
    job = linux.job()
    started = re.search(r"^ExecStart=(.*)$", make_service(job), re.MULTILINE)
    assert started
    assert "100%%/" in started[1]  # a single % begins a specifier
    starter, program, option = shlex.split(started[1].replace("%%", "%"))
    assert (Path(starter), Path(program), option) == (job.starter, job.program, "--once")
    assert re.findall("OnCalendar=(.*)", make_timer(job)) == ["*-*-* 03:20:00", "*-*-* *:20:00"]
    assert "Persistent=true" in make_timer(job)


def test_systemd_install_status_and_uninstall_call_in_the_right_order(linux: Installation) -> None:
    assert linux.run("install").returncode == 0
    timer = "ai-backtest-backup.timer"
    assert linux.calls("systemctl") == [
        "--user show-environment",
        "--user daemon-reload",
        f"--user enable {timer}",
        f"--user restart {timer}",
        "--user start --no-block ai-backtest-backup.service",
    ]
    make_well(linux)
    assert linux.run("status").returncode == 0
    assert linux.run("uninstall").returncode == 0
    assert list(linux.units.iterdir()) == []
    assert linux.run("status").returncode == 1


def test_without_a_scheduler_the_crontab_lines_are_installed_when_the_user_agrees(
    linux: Installation,
) -> None:
    """A crontab of others stays as it is; what is installed works as cron calls it, and prints
    failures only."""
    linux.refuse("systemctl", "all")
    (linux.tools / "crontab").write_text(CRONTAB)
    (linux.tools / "crontab").chmod(0o755)
    table = linux.tools / "crontab.table"
    table.write_text("1 2 * * * other job\n")

    refused = linux.run("install")
    assert refused.returncode == 1
    assert "nothing was installed" in refused.stderr
    assert "next: make schedule-install ARGS=--anyway" in refused.stderr
    assert table.read_text() == "1 2 * * * other job\n"

    for _ in range(2):
        assert linux.run("install", "--anyway").returncode == 0
        others, line = table.read_text().splitlines()
        assert others == "1 2 * * * other job"
        assert f"{line}\n" == make_crontab_line(linux.job())
    fields = line.split(" ", 5)
    assert fields[:5] == ["20", "*", "*", "*", "*"]
    command = fields[5].replace("\\%", "%")
    environment = {"HOME": str(linux.home), "PATH": "/usr/bin:/bin"}
    run = subprocess.run(
        ["/bin/sh", "-c", command], env=environment, check=True, capture_output=True
    )
    assert run.stdout + run.stderr == b""
    assert len(load_catalogue(linux.backup_dir)) == 2
    assert linux.run("status").returncode == 0

    (linux.project / "backtesting.db").rename(linux.project / "away.db")
    later = f"rm {shlex.quote(str(linux.backup_dir))}/*; {command}"
    failed = subprocess.run(
        ["/bin/sh", "-c", later], env=environment, check=False, capture_output=True, text=True
    )
    assert "full backup failed" in failed.stdout
    assert linux.run("uninstall").returncode == 0
    assert table.read_text() == "1 2 * * * other job\n"


def test_market_data_gets_a_job_of_its_own_where_there_is_a_key(linux: Installation) -> None:
    env_file = linux.project / ".env"
    without = env_file.read_text()
    done = linux.run("install")
    assert "market data is not updated by itself: no API key is set" in done.stdout
    assert [unit.name for unit in linux.units.iterdir() if "update" in unit.name] == []

    env_file.write_text(without + "POLYGON_API_KEY=abc\nUPDATE_DELAY_MINUTES=20\n")
    (linux.project / "db").write_text('#!/bin/sh\necho "$@" >>"$0.calls"\n')
    (linux.project / "db").chmod(0o755)
    done = linux.run("install")
    assert done.returncode == 0, done.stderr
    assert (linux.project / "db.calls").read_text() == "setup market\n"
    service, timer = (linux.units / f"ai-backtest-update.{kind}" for kind in ("service", "timer"))
    assert "--updates --once" in service.read_text()
    assert "OnCalendar=*-*-* *:05,35:00" in timer.read_text()
    assert "abc" not in service.read_text() + timer.read_text()
    make_well(linux)
    status = linux.run("status")
    assert status.returncode == 0, status.stdout
    assert "loaded: ai-backtest-update.timer" in status.stdout

    env_file.write_text(without + "POLYGON_API_KEY=abc\nUPDATE_DELAY_MINUTES=\n")
    done = linux.run("install")
    assert "market data is not updated by itself: UPDATE_DELAY_MINUTES is empty" in done.stdout
    assert not service.exists()


def test_mac_gets_a_second_label_for_the_market_data(mac: Installation) -> None:
    (mac.project / "db").write_text("#!/bin/sh\n")
    (mac.project / "db").chmod(0o755)
    with (mac.project / ".env").open("a") as file:
        file.write("POLYGON_API_KEY=abc\n")
    done = mac.run("install")
    assert done.returncode == 0, done.stderr
    label = "com.aibacktest.update"
    plist = plistlib.loads((mac.plist.with_name(f"{label}.plist")).read_bytes())
    assert plist["Label"] == label
    assert plist["ProgramArguments"][-2:] == ["--updates", "--once"]
    assert plist["StartCalendarInterval"] == [{"Minute": 15}, {"Minute": 45}]
    assert plist["StandardErrorPath"].endswith(f"/Library/Logs/{label}.log")
    assert mac.run("uninstall").returncode == 0
    assert list(mac.plist.parent.iterdir()) == []


def set_offsite(made: Installation, address: str) -> None:
    """`db` is a stand-in that records its calls: the packages are here already."""
    (made.project / "db").write_text('#!/bin/sh\necho "$@" >>"$0.calls"\n')
    (made.project / "db").chmod(0o755)
    with (made.project / ".env").open("a") as file:
        file.write(f"OFFSITE={address}\nOFFSITE_PASSPHRASE='correct horse battery'\n")


def test_copies_off_the_machine_get_a_service_that_stays_where_offsite_is_set(
    linux: Installation,
) -> None:
    unit = linux.units / "ai-backtest-offsite.service"
    assert "no copies leave this machine: OFFSITE is not set" in linux.run("install").stdout
    assert not unit.exists()

    before = (linux.project / ".env").read_text()
    set_offsite(linux, str(linux.home / "elsewhere"))
    linux.calls("systemctl")
    done = linux.run("install")
    assert done.returncode == 0, done.stderr
    assert linux.calls("systemctl")[-2:] == [
        f"--user enable {unit.name}",
        f"--user restart {unit.name}",
    ]
    assert (linux.project / "db.calls").read_text() == "setup offsite\n"
    assert unit.read_text() == make_service(Job(linux.job().settings, linux.project, "offsite"))
    assert 'scripts/run_offsite.py" watch\nRestart=always\n' in unit.read_text()
    assert "battery" not in unit.read_text()

    make_well(linux)
    status = linux.run("status")
    assert f"loaded: {unit.name}" in status.stdout
    assert (status.returncode, "nothing was sent" in status.stdout) == (1, True)

    (linux.project / ".env").write_text(before)
    assert linux.run("install").returncode == 0
    assert not unit.exists()


def test_mac_keeps_the_process_that_sends_copies_alive(mac: Installation) -> None:
    set_offsite(mac, "s3://bucket/prefix")
    done = mac.run("install")
    assert done.returncode == 0, done.stderr
    label = "com.aibacktest.offsite"
    plist = plistlib.loads((mac.plist.with_name(f"{label}.plist")).read_bytes())
    program = str(mac.project / "scripts" / "run_offsite.py")
    assert (plist["Label"], plist["ProgramArguments"][1:]) == (label, [program, "watch"])
    assert (plist["RunAtLoad"], plist["KeepAlive"]) == (True, True)
    assert "StartCalendarInterval" not in plist
    assert plist["StandardErrorPath"].endswith(f"/Library/Logs/{label}.log")
    assert mac.run("uninstall").returncode == 0
    assert list(mac.plist.parent.iterdir()) == []


def test_cron_starts_the_process_that_sends_copies_and_a_second_one_leaves_in_silence(
    linux: Installation,
) -> None:
    set_offsite(linux, str(linux.home / "elsewhere"))
    job = Job(linux.job().settings, linux.project, "offsite")
    fields = make_crontab_line(job).strip().split(" ", 5)
    assert fields[0] == ",".join(str(minute) for minute in range(0, 60, 5))
    folder = target_folder(linux.backup_dir, job.settings.offsite)
    folder.mkdir(parents=True)
    with exclusive_lock(folder / ".lock", "the first one"):
        second = subprocess.run(
            ["/bin/sh", "-c", fields[5].replace("\\%", "%")],
            env={"HOME": str(linux.home), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert (second.returncode, second.stdout + second.stderr) == (0, "")


def test_setting_of_copies_that_only_the_environment_has_is_refused(linux: Installation) -> None:
    set_offsite(linux, "s3://bucket/prefix")
    done = linux.run("install", OFFSITE_ENDPOINT="https://127.0.0.1:1")
    assert done.returncode == 2
    assert "OFFSITE_ENDPOINT comes from the environment" in done.stderr


def test_uninstall_fails_while_the_timer_stays_enabled(linux: Installation) -> None:
    assert linux.run("install").returncode == 0
    linux.refuse("systemctl", "disable")
    done = linux.run("uninstall")
    assert done.returncode == 1
    assert "next: systemctl --user disable --now ai-backtest-backup.timer" in done.stderr
    assert (linux.units / "ai-backtest-backup.timer").exists()


@pytest.mark.parametrize(
    ("words", "packages"),
    [
        ("scripts/run_scheduler.py --once", "backup"),
        ("scripts/run_scheduler.py --updates --once", "market"),
        ("scripts/run_offsite.py watch", "offsite"),
    ],
)
def test_scheduled_job_whose_python_is_gone_mends_it_or_fails_with_the_reason(
    words: str, packages: str, tmp_path: Path
) -> None:
    """With a stand-in of ./db: it is asked, for the right packages, and heard. What ./db does is in
    test_set_up.py."""
    linux = install(tmp_path)
    venv, db = linux.project / ".venv", linux.project / "db"
    venv.unlink()
    (venv / "bin").mkdir(parents=True)
    (venv / f"ready-{packages}").touch()
    (venv / "bin" / "python").symlink_to("/opt/homebrew/opt/python@3.10/bin/python3.10")
    (linux.project / "scripts" / "job.py").write_text("import sys; sys.exit(int(sys.argv[-1]))\n")

    def run(number: int) -> subprocess.CompletedProcess[str]:
        command = [linux.job().starter, linux.project / "scripts" / "job.py", *words.split()]
        return subprocess.run(
            [*map(str, command), str(number)], capture_output=True, text=True, check=False, cwd="/"
        )

    db.write_text('#!/bin/sh\necho "no index for $*" >&2\nexit 1\n')
    failed = run(0)
    assert (failed.returncode, failed.stderr) == (1, f"no index for setup {packages}\n")

    mended = shlex.quote(str(venv / "bin" / "python"))
    db.write_text(f"#!/bin/sh\nln -sf {shlex.quote(sys.executable)} {mended}\n")
    assert run(3).returncode == 3
    db.write_text("#!/bin/sh\nexit 9\n")  # not asked again
    assert run(0).returncode == 0
