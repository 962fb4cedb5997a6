"""What is printed of jobs that ran together: totals of the run once, a report for each job."""

import json

import pytest

from backtestdb.market.coverage import Coverage
from backtestdb.market.jobs import Report, RunTotals
from backtestdb.market.report import print_reports
from backtestdb.market.splits import SplitLook


def make_reports() -> list[tuple[str, Report]]:
    run = RunTotals(
        requests=7,
        bars=300,
        dropped=5,
        failures={"IBM": "cut", "session 2026-11-19": "not there"},
        splits=SplitLook(refetched={"AAPL": "AAPL 2:1 on 2026-11-18 is listed"}),
    )
    own = RunTotals(requests=2, bars=40)
    return [
        ("first", Report(run=run, coverage=Coverage(failed_of={"IBM": 2}))),
        ("second", Report(run=run, coverage=Coverage(failed_of={"IBM": 1}))),
        ("alone", Report(run=own)),
    ]


def test_totals_of_jobs_that_ran_together_are_printed_once_and_each_job_names_its_holes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # several workers of pytest see a narrow terminal
    print_reports(make_reports())
    printed = capsys.readouterr().out
    rows = {cells[1]: cells for cells in map(str.split, printed.splitlines()) if len(cells) > 9}
    assert rows["first"][3:6:2] == ["7", "300"]
    assert rows["alone"][3:6:2] == ["2", "40"]
    assert [cell for cell in rows["second"] if cell != "│"] == ["second", *"000000"]
    for line in ("5 bars of other tickers", "session 2026-11-19: not there", "AAPL 2:1"):
        assert printed.count(line) == 1
    assert "first: FAILED IBM, 2 sessions: cut" in printed
    assert "second: FAILED IBM, 1 sessions: cut" in printed


def test_totals_of_json_reports_add_up_to_what_was_sent(capsys: pytest.CaptureFixture[str]) -> None:
    print_reports(make_reports(), as_json=True)
    reports = json.loads(capsys.readouterr().out)
    assert [report["requests"] for report in reports] == [7, 0, 2]
    assert [report["failed_of"] for report in reports] == [{"IBM": 2}, {"IBM": 1}, {}]
