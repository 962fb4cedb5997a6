"""The sandbox's reference data: tickers, companies, splits, and who is in the grouped answers."""

from sandbox_process import SandboxOptions, SandboxProcess, fetch_pages, fetch_rows

GROUPED = "/v2/aggs/grouped/locale/us/market/stocks"


SANDBOX = SandboxOptions("--tickers", "300", today="2026-11-20")


def test_reference_lists_active_tickers_in_pages(sandbox: SandboxProcess) -> None:
    pages = fetch_pages(sandbox, "/v3/reference/tickers", market="stocks", active="true", limit=100)
    rows = [row for page in pages for row in page["results"]]
    tickers = [row["ticker"] for row in rows]
    assert len(pages) > 2
    assert tickers == sorted(set(tickers))
    assert {"AAPL", "NA", "TRUE", "BRK.B", "KIMpL", "MOG.A", "META"} <= set(tickers)
    assert not {"ANSS", "PARA"} & set(tickers)
    assert all(
        row["active"] and row["market"] == "stocks" and "delisted_utc" not in row for row in rows
    )


def test_reference_type_filters(sandbox: SandboxProcess) -> None:
    kinds = {"CS", "ADRC", "PFD", "ETF"}
    found = {
        kind: fetch_rows(sandbox, "/v3/reference/tickers", type=kind, limit=1000) for kind in kinds
    }
    assert all(found.values())
    assert all(row["type"] == kind for kind, rows in found.items() for row in rows)
    assert "KIMpL" in [row["ticker"] for row in found["PFD"]]
    assert not fetch_rows(sandbox, "/v3/reference/tickers", market="crypto")


def test_reference_inactive_lists_the_delisted_with_their_date(sandbox: SandboxProcess) -> None:
    rows = fetch_rows(sandbox, "/v3/reference/tickers", active="false", limit=1000)
    delisted = {row["ticker"]: row["delisted_utc"][:10] for row in rows}
    assert delisted["ANSS"] == "2025-07-17"
    assert delisted["PARA"] == "2025-08-07"
    assert not any(row["active"] for row in rows)
    assert any(ticker.startswith("Z") for ticker in delisted)
    before = fetch_rows(
        sandbox, "/v3/reference/tickers", active="false", limit=1000, date="2025-08-01"
    )
    assert "ANSS" in [row["ticker"] for row in before]
    assert "PARA" not in [row["ticker"] for row in before]


def test_delisted_and_late_tickers_have_bars_only_while_listed(sandbox: SandboxProcess) -> None:
    anss = fetch_rows(sandbox, "/v2/aggs/ticker/ANSS/range/1/day/2025-07-01/2025-12-31")
    assert anss[-1]["t"] == 1752638400000  # 2025-07-16 00:00 New York
    newco = fetch_rows(sandbox, "/v2/aggs/ticker/NEWCO/range/1/day/2020-01-01/2026-11-20")
    assert newco[0]["t"] == 1781496000000  # 2026-06-15
    assert sandbox.get("/v3/reference/tickers/NEWCO", date="2026-06-14").status_code == 404


def test_reused_ticker_is_another_company_at_another_price(sandbox: SandboxProcess) -> None:
    now = sandbox.get("/v3/reference/tickers/META").json()["results"]
    then = sandbox.get("/v3/reference/tickers/META", date="2022-01-03").json()["results"]
    assert now["composite_figi"] != then["composite_figi"]
    assert sandbox.get("/v3/reference/tickers/META", date="2022-03-01").status_code == 404
    rows = fetch_rows(sandbox, "/v2/aggs/ticker/META/range/1/day/2021-06-30/2022-06-30")
    old = [row["c"] for row in rows if row["t"] < 1654747200000]  # 2022-06-09 00:00 New York
    new = [row["c"] for row in rows if row["t"] >= 1654747200000]
    assert len(old) > 100
    assert not 0.5 < new[0] / old[-1] < 2


def test_reference_unknown_ticker_is_404(sandbox: SandboxProcess) -> None:
    for path in ("/v3/reference/tickers/NOBODY", "/v3/reference/tickers/brk.b", "/v9/unknown"):
        answer = sandbox.get(path)
        assert answer.status_code == 404
        assert answer.json()["status"] == "NOT_FOUND"
        assert answer.json()["message"]


def test_grouped_holds_tickers_that_the_reference_lacks(sandbox: SandboxProcess) -> None:
    rows = sandbox.get(f"{GROUPED}/2026-11-19").json()["results"]
    listed = {row["ticker"] for row in fetch_rows(sandbox, "/v3/reference/tickers", limit=1000)}
    grouped = [row["T"] for row in rows]
    assert len(set(grouped)) == len(grouped)
    assert len(set(grouped) - listed) > 50
    assert len(set(grouped) & listed) > 0.9 * len(listed)


def test_grouped_holds_junk_on_demand(sandbox: SandboxProcess) -> None:
    plain = sandbox.get(f"{GROUPED}/2026-11-19").json()["results"]
    sandbox.set_settings(junk=True)
    with_junk = sandbox.get(f"{GROUPED}/2026-11-19").json()["results"]
    assert with_junk[:-1] == plain
    assert (with_junk[-1]["T"], with_junk[-1]["c"]) == ("JUNK\x1b", 9e11)


def test_splits_endpoints_list_what_is_known_today(sandbox: SandboxProcess) -> None:
    sandbox.set_today("2004-01-02")
    new = sandbox.get("/stocks/v1/splits", limit=5000).json()["results"]
    assert [
        (row["ticker"], row["execution_date"], row["split_from"], row["split_to"]) for row in new
    ] == [("AAPL", "2000-06-21", 1, 2), ("MSFT", "2003-02-18", 1, 2)]
    assert {row["adjustment_type"] for row in new} == {"forward_split"}
    old = sandbox.get("/v3/reference/splits", limit=1000).json()["results"]
    assert [{**row, "adjustment_type": "forward_split"} for row in old[::-1]] == new


def test_splits_endpoints_filter_and_page(sandbox: SandboxProcess) -> None:
    rows = sandbox.get("/stocks/v1/splits", **{"execution_date.gte": "2003-02-18"}).json()[
        "results"
    ]
    assert [row["execution_date"] for row in rows] == ["2003-02-18", "2005-02-28"]
    rows = sandbox.get("/stocks/v1/splits", **{"execution_date.lte": "2003-02-18"}).json()[
        "results"
    ]
    assert [row["execution_date"] for row in rows] == ["2000-06-21", "2003-02-18"]
    assert [
        row["execution_date"]
        for row in fetch_rows(sandbox, "/stocks/v1/splits", ticker="AAPL", limit=1)
    ] == ["2000-06-21", "2005-02-28"]
    assert len(fetch_rows(sandbox, "/v3/reference/splits", limit=1)) == 3


def test_splits_come_twice_late_or_never_on_demand(sandbox: SandboxProcess) -> None:
    split = {"ticker": "NVDA", "execution_date": "2026-11-17", "split_from": 1, "split_to": 4}
    sandbox.set_splits(
        {**split, "copies": 2}, {**split, "ticker": "AMD", "listed_from": "2026-11-23"}
    )
    listed = [row["ticker"] for row in fetch_rows(sandbox, "/stocks/v1/splits")]
    assert (listed.count("NVDA"), listed.count("AMD")) == (2, 0)
    sandbox.set_today("2026-11-23")
    listed = [row["ticker"] for row in fetch_rows(sandbox, "/stocks/v1/splits")]
    assert (listed.count("NVDA"), listed.count("AMD")) == (2, 1)
