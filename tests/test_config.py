"""Settings: where each comes from, which values are refused, and what an error may say."""

import dataclasses
from datetime import time
from pathlib import Path

import pytest

from backtestdb.config import OFF_WHEN_EMPTY, PARSERS, PROJECT_DIR, SECRETS, Settings, load_settings
from backtestdb.errors import SettingsError

REFUSED = [
    ("DATABASE_PATH", "backtesting.db", "relative"),
    ("DATABASE_PATH", "./x/backtesting.db", "relative"),
    ("DATABASE_PATH", "~no-such-user-here/x.db", "user"),
    ("BACKUP_DIR", "backups", "relative"),
    ("GENERATED_SCRIPTS_DIR", "scripts", "relative"),
    ("MAX_BACKUPS", "0", "from 1"),
    ("MAX_BACKUPS", "--5", "whole number"),
    ("MAX_BACKUPS", "3.5", "whole number"),
    ("MAX_BACKUPS", "thirty", "whole number"),
    ("MAX_BACKUPS", "²", "whole number"),
    ("MAX_BACKUPS", "1_0", "whole number"),
    ("MAX_BACKUPS", "9" * 5000, "whole number"),
    ("KEEP_SMALL_HOURLY", "-1", "from 0"),
    ("MIN_BACKUPS", "0", "from 1"),
    ("BACKUP_TIME", "24:00", "time of day"),
    ("BACKUP_TIME", "2", "time of day"),
    ("BACKUP_TIME", "02:00:00", "time of day"),
    ("BACKUP_TIME", "02:60", "time of day"),
    ("IRREPLACEABLE_EVERY_MINUTES", "-1", "from 0"),
    ("POLYGON_BASE_URL", "http://api.massive.com", "https"),
    ("POLYGON_BASE_URL", "http://127.0.0.1@example.com", "https"),
    ("POLYGON_BASE_URL", "http://127.0.0.1.example.com", "https"),
    ("POLYGON_BASE_URL", "ftp://127.0.0.1", "https"),
    ("POLYGON_BASE_URL", "api.massive.com", "https"),
    ("POLYGON_BASE_URL", "https://", "https"),
    ("POLYGON_REQUESTS_PER_MINUTE", "-1", "from 0"),
    ("POLYGON_CONCURRENCY", "-1", "from 0"),
    ("POLYGON_TIMEOUT_SECONDS", "0", "above 0"),
    ("POLYGON_TIMEOUT_SECONDS", "3601", "up to 3600"),
    ("POLYGON_TIMEOUT_SECONDS", "nan", "above 0"),
    ("POLYGON_TIMEOUT_SECONDS", "soon", "number of seconds"),
    ("PORT", "0", "from 1"),
    ("PORT", "65536", "to 65535"),
]


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def load(env_file: Path, **environment: str) -> Settings:
    return load_settings(environment, env_file)


def test_settings_without_environment_and_file_are_the_defaults(env_file: Path) -> None:
    settings = load(env_file)
    assert settings.database_path == PROJECT_DIR / "backtesting.db"
    assert settings.backup_dir == Path.home() / "Backups" / "ai-backtest"
    assert settings.generated_scripts_dirs[0] == PROJECT_DIR / "claude-generated-scripts"
    assert (settings.max_backups, settings.min_backups) == (30, 7)
    assert (settings.keep_full_weekly, settings.keep_full_monthly) == (4, 3)
    assert (settings.keep_small_hourly, settings.keep_small_daily) == (336, 60)
    assert (settings.keep_small_weekly, settings.keep_small_monthly) == (52, 120)
    assert (settings.backup_time, settings.irreplaceable_every_minutes) == (time(2, 0), 60)
    assert (settings.heartbeat_url, settings.api_key) == ("", "")
    assert settings.base_url == "https://api.massive.com"
    assert (settings.requests_per_minute, settings.concurrency) == (5, 1)
    assert (settings.watchlist_tickers, settings.port) == ((), 3000)
    assert set(settings.origins.values()) == {"default"}


def test_environment_wins_over_file_and_file_over_default(env_file: Path) -> None:
    env_file.write_text("MAX_BACKUPS=7\nPORT=4000\n")
    settings = load(env_file, MAX_BACKUPS="9")
    assert (settings.max_backups, settings.port) == (9, 4000)
    assert settings.origins["MAX_BACKUPS"] == "the environment"
    assert settings.origins["PORT"] == str(env_file)


def test_empty_update_delay_turns_the_updates_off(env_file: Path) -> None:
    assert load(env_file).update_delay_minutes == 30
    env_file.write_text("UPDATE_DELAY_MINUTES=\n")
    assert load(env_file).update_delay_minutes is None
    assert load(env_file, UPDATE_DELAY_MINUTES="5").update_delay_minutes == 5


@pytest.mark.parametrize(
    "url", ["hc-ping.com/secret", "ftp://host/secret", "https:///secret", "https://a b/secret"]
)
def test_watcher_that_is_no_address_is_refused_without_showing_it(env_file: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="HEARTBEAT_URL") as caught:
        load(env_file, HEARTBEAT_URL=url)
    assert "secret" not in str(caught.value)
    assert (
        load(env_file, HEARTBEAT_URL="http://10.0.0.2:8000/ping/1").heartbeat_url
        == "http://10.0.0.2:8000/ping/1"
    )


def test_older_name_of_a_setting_is_read_while_the_new_one_is_empty(env_file: Path) -> None:
    env_file.write_text("MAX_IRREPLACEABLE_BACKUPS=99\nKEEP_SMALL_HOURLY=\n")
    assert load(env_file).keep_small_hourly == 99
    assert load(env_file, KEEP_SMALL_HOURLY="7").keep_small_hourly == 7


def test_several_folders_of_scripts_are_told_apart_and_one_inside_another_is_part_of_it(
    env_file: Path,
) -> None:
    settings = load(env_file, GENERATED_SCRIPTS_DIR="/a/scripts:/b:/a/scripts/success")
    assert settings.generated_scripts_dirs == (Path("/a/scripts"), Path("/b"))
    assert not settings.scripts_dirs_are_default


@pytest.mark.parametrize("name", sorted(set(PARSERS) - OFF_WHEN_EMPTY))
def test_empty_value_means_the_next_source(env_file: Path, name: str) -> None:
    env_file.write_text(f"{name}=\n")
    settings = load(env_file, **{name: ""})
    assert settings.origins[name] == "default"
    assert dataclasses.asdict(settings) == dataclasses.asdict(load(env_file.with_name("missing")))


def test_empty_env_file_name_means_the_projects_file() -> None:
    named = load_settings({"BACKTEST_ENV_FILE": "", "MAX_BACKUPS": "7"})
    assert dataclasses.asdict(named) == dataclasses.asdict(load_settings({"MAX_BACKUPS": "7"}))


def test_env_file_is_found_where_the_environment_says(env_file: Path) -> None:
    env_file.write_text("PORT=4000\n")
    assert load_settings({"BACKTEST_ENV_FILE": str(env_file)}).port == 4000


@pytest.mark.parametrize(("name", "text", "rule"), REFUSED)
def test_wrong_value_is_refused_with_name_value_and_rule(
    env_file: Path, name: str, text: str, rule: str
) -> None:
    with pytest.raises(SettingsError, match=rule) as caught:
        load(env_file, **{name: text})
    assert caught.value.exit_code == 2
    assert f"{name}={text} (from the environment)" in str(caught.value)
    assert name in caught.value.next_step


def test_relative_path_names_the_file_that_it_came_from(env_file: Path) -> None:
    env_file.write_text("DATABASE_PATH=./backtesting.db\n")
    with pytest.raises(SettingsError) as caught:
        load(env_file)
    assert f"DATABASE_PATH=./backtesting.db (from {env_file}) is a relative path" in str(caught.value)


def test_home_is_expanded_in_paths(env_file: Path) -> None:
    assert load(env_file, BACKUP_DIR="~/safe").backup_dir == Path.home() / "safe"


def test_values_keep_what_they_hold(env_file: Path) -> None:
    env_file.write_text(
        'DATABASE_PATH="/data/my $HOME (1).db"\nWATCHLIST_TICKERS= BRK.B,,NA ,TRUE,KIMpL,NA\n'
    )
    settings = load(env_file, BACKUP_TIME="7:05", POLYGON_BASE_URL=" http://127.0.0.1:8000/ ")
    assert settings.database_path == Path("/data/my $HOME (1).db")
    assert settings.watchlist_tickers == ("BRK.B", "NA", "TRUE", "KIMpL")
    assert settings.backup_time == time(7, 5)
    assert settings.base_url == "http://127.0.0.1:8000"


@pytest.mark.parametrize("url", ["http://localhost:1", "http://[::1]:2", "https://example.com/api"])
def test_plain_http_is_taken_on_this_machine_and_https_anywhere(env_file: Path, url: str) -> None:
    assert load(env_file, POLYGON_BASE_URL=url).base_url == url


@pytest.mark.parametrize(
    ("per_minute", "concurrency", "expected"),
    [("5", "", 1), ("100", "", 1), ("101", "", 8), ("0", "", 8), ("5", "3", 3), ("0", "2", 2)],
)
def test_concurrency_follows_the_quota_unless_it_is_set(
    env_file: Path, per_minute: str, concurrency: str, expected: int
) -> None:
    settings = load(env_file, POLYGON_REQUESTS_PER_MINUTE=per_minute, POLYGON_CONCURRENCY=concurrency)
    assert settings.concurrency == expected


def test_second_key_is_read_when_the_first_is_empty(env_file: Path) -> None:
    env_file.write_text("POLYGON_API_KEY=\nMASSIVE_API_KEY=second\n")
    assert load(env_file).api_key == "second"
    assert load(env_file, POLYGON_API_KEY="first").api_key == "first"


@pytest.mark.parametrize("name", ["POLYGON_API_KEY", "MASSIVE_API_KEY"])
@pytest.mark.parametrize("key", ["secret key", "secretkeyé", "secret\nkey", "secret\x00key"])
def test_key_that_no_header_can_carry_is_refused_without_showing_it(
    env_file: Path, name: str, key: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(env_file, **{name: key})
    assert name in str(caught.value)
    assert "secret" not in str(caught.value) + caught.value.next_step


def test_representation_of_settings_holds_no_secret(env_file: Path) -> None:
    settings = load(env_file, **{name: f"https://secret-{name}.example" for name in SECRETS})
    assert settings.api_key
    assert settings.heartbeat_url
    assert "secret" not in repr(settings)


def test_file_that_is_not_text_is_named(env_file: Path) -> None:
    env_file.write_bytes(b"PORT=4000 # caf\xe9\n")
    with pytest.raises(SettingsError, match="UTF-8"):
        load(env_file)


def test_relative_state_folder_is_ignored_because_each_folder_would_have_its_own_quota(
    env_file: Path, tmp_path: Path
) -> None:
    default = Path.home() / ".local" / "state" / "ai-backtest"
    assert load(env_file).state_dir == default
    assert load(env_file, XDG_STATE_HOME="state").state_dir == default
    assert load(env_file, XDG_STATE_HOME=str(tmp_path)).state_dir == tmp_path / "ai-backtest"
