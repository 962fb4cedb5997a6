"""What a rebuild is to bring, as a value that is written into the file it builds."""

import json
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta

CONTINUED_FOR = timedelta(days=7)


@dataclass(frozen=True)
class RebuildPlan:
    """`universe` is empty for the schema alone; no `tickers` means those that the vendor lists. Dates are
    sessions in ISO text, empty where nothing is asked."""

    universe: str = ""
    tickers: tuple[str, ...] = ()
    daily_start: str = ""
    intraday_start: str = ""
    end: str = ""

    def to_text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def parse_plan(text: str) -> RebuildPlan:
    values = json.loads(text)
    return RebuildPlan(**{**values, "tickers": tuple(values["tickers"])})


def continues(earlier: RebuildPlan, wanted: RebuildPlan, *, end_was_given: bool) -> bool:
    """Whether the work on `earlier` is work on `wanted`.

    The same plan is. So is one of at most a week ago that differs in its dates alone, unless the
    user named the end: whoever starts a killed rebuild again after midnight wants it finished, and the days
    since are what `make update` is for.
    """
    if earlier == wanted:
        return True
    if end_was_given or not wanted.end or not earlier.end:
        return False
    age = date.fromisoformat(wanted.end) - date.fromisoformat(earlier.end)
    return without_dates(earlier) == without_dates(wanted) and timedelta(0) <= age <= CONTINUED_FOR


def without_dates(plan: RebuildPlan) -> RebuildPlan:
    """Which steps there are still shows: an empty start stays empty."""
    return replace(
        plan,
        daily_start="asked" if plan.daily_start else "",
        intraday_start="asked" if plan.intraday_start else "",
        end="",
    )
