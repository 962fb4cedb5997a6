"""Docstrings keep to the grammar of CONTRIBUTING.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import PROJECT_DIR

PACKAGE = PROJECT_DIR / "scripts" / "backtestdb"
LONG_FUNCTION_LINES = 10
WORDS = """
Given Return Yield Raise Accept Add Answer Append Apply Ask Backfill Begin Bind Block Bring Build
Call Carry Change Check Choose Claim Clear Close Commit Compare Complete Compute Connect Convert
Copy Correct Count Create Cut Decide Decode Delete Describe Detect Drop Encode End Ensure Estimate
Exit Explain Export Fetch Fill Find Finish Flush Follow Forget Format Give Grow Guard Hash Hold
Insert Install Join Judge Keep Leave Let Link List Load Lock Look Make Mark Match Measure Mend
Merge Move Name Note Open Overwrite Parse Patch Place Plan Print Probe Prove Publish Put Read
Rebuild Reckon Record Refuse Reject Release Remember Remove Rename Repair Replace Report Reserve
Reset Restore Retry Rewrite Run Salvage Save Say Search Send Serve Set Show Skip Sort Split Spoil
Stage Start Stop Store Take Tell Test Treat Try Turn Update Use Verify Wait Warn Watch Write
"""
FIRST_WORDS = set(WORDS.split())
FORBIDDEN = re.compile(
    r"\b(whoever|nobody|no one|that which|somebody|someone|what stood there)\b"
    r"|(^|[.;:] )One (is|has|was|that|which|who|of)\b",
    re.IGNORECASE,
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(body: list[ast.stmt]) -> Iterator[Function]:
    """Yield the functions and methods that other modules may call."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from public_functions(node.body)
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield node


def find_faults(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each docstring that breaks the grammar: in which way, and where."""
    tree = ast.parse(path.read_text())
    place = path.relative_to(PROJECT_DIR)
    for function in public_functions(tree.body):
        text = ast.get_docstring(function)
        where = f"{place}:{function.lineno} {function.name}"
        if text and re.split(r"\W", text, maxsplit=1)[0] not in FIRST_WORDS:
            yield "first word", f"{where}: {text.splitlines()[0]}"
        long = (function.end_lineno or 0) - function.lineno >= LONG_FUNCTION_LINES
        if not text and long and function.name != "main":
            yield "missing", where
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.ClassDef | ast.Module):
            text = " ".join((ast.get_docstring(node) or "").split())
            if found := FORBIDDEN.search(text):
                yield "subject", f"{place} {getattr(node, 'name', '')}: {found[0]}"


def room_of(path: Path) -> str:
    parts = path.relative_to(PROJECT_DIR / "scripts").parts
    return parts[1] if len(parts) > 2 else "the ground floor" if len(parts) > 1 else "commands"


ROOMS = sorted({room_of(path) for path in (PROJECT_DIR / "scripts").rglob("*.py")})


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_of_a_room_keep_to_the_grammar(room: str) -> None:
    faults = [
        fault
        for path in sorted((PROJECT_DIR / "scripts").rglob("*.py"))
        if room_of(path) == room
        for fault in find_faults(path)
    ]
    assert not faults
