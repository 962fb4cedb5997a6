"""What doctor says about the copies off this machine."""

from dataclasses import replace
from datetime import datetime

from backtestdb.config import Settings
from backtestdb.health.problem import Problem, ok, wrong
from backtestdb.offsite.facts import find_offsite_problems, load_offsite_facts


def check_offsite(settings: Settings, now: datetime) -> list[Problem]:
    """Given the settings, return what this machine remembers of its copies elsewhere. Empty without
    OFFSITE."""
    # The place itself is never asked.
    facts = load_offsite_facts(settings, now)
    if facts is None:
        return []
    found = [wrong(one.name, one.what, one.next_step) for one in find_offsite_problems(facts)]
    found = found or [ok("offsite", f"copies at {facts.target} are up to date")]
    return [replace(one, where="offsite") for one in found]
