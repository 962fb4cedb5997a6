"""`--again`: what is asked for once more, whatever the records say."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date

from backtestdb.errors import UsageError
from backtestdb.market.jobs import Job


@dataclass(frozen=True)
class AskAgain:
    """Sessions from `start` to `end` (None: without a bound) of `tickers` (none: of all). Without
    any of them what is provisional is meant, which every run asks for anyway."""

    tickers: tuple[str, ...] = ()
    start: date | None = None
    end: date | None = None

    @property
    def is_provisional_only(self) -> bool:
        return not (self.tickers or self.start or self.end)


def apply_again(jobs: Sequence[Job], again: AskAgain) -> list[Job]:
    """Given the jobs of what was asked for before, return them with what is asked for again. Raise
    UsageError for a ticker of none of them, and where no session of theirs is meant."""
    if again.is_provisional_only:
        return list(jobs)
    verify_members(again.tickers, {ticker for job in jobs for ticker in job.tickers})

    changed = [ask_job_again(job, again) for job in jobs]
    if not any(job.refetch and job.refetch_tickers for job in changed):
        ranges = ", ".join(
            f"{job.universe} {job.sessions[0]} to {job.sessions[-1]}" for job in jobs
        )
        raise UsageError(
            "--again: nothing of this was asked for before", next_step=f"choose within {ranges}"
        )

    return changed


def ask_job_again(job: Job, again: AskAgain) -> Job:
    first, last = again.start or date.min, again.end or date.max
    days = tuple(day for day in job.sessions if first <= day <= last)
    tickers = tuple(
        ticker for ticker in job.tickers if not again.tickers or ticker in again.tickers
    )
    return replace(job, refetch=days, refetch_tickers=tickers)


def verify_members(tickers: Sequence[str], members: Collection[str]) -> None:
    unknown = [ticker for ticker in tickers if ticker not in members]
    if unknown:
        raise UsageError(
            f"--tickers {', '.join(unknown)}: in none of the asked universes",
            next_step="make status names the universes; tickers are case-sensitive",
        )
