"""All rules of the audit, in the order in which they are read: the one list."""

from backtestdb.market.audit import (
    bar_rules,
    clock_rules,
    day_and_minute_rules,
    market_rules,
    metric_rules,
    record_rules,
    series_rules,
)

RULES = (
    *bar_rules.RULES,
    *clock_rules.RULES,
    *series_rules.RULES,
    *day_and_minute_rules.RULES,
    *market_rules.RULES,
    *metric_rules.RULES,
    *record_rules.RULES,
)
