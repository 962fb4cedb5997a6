"""The former name of a Problem, for what still says it."""

from backtestdb.health.problem import Problem as Finding
from backtestdb.health.problem import note, ok, wrong

__all__ = ["Finding", "note", "ok", "wrong"]
