"""Documents, and comments in SQL and shell, are no wider than 100 columns: addresses, tables and
what is to be copied into a terminal excepted. Python's width is ruff's."""

import re
from collections.abc import Iterator
from pathlib import Path

from commands import PROJECT_DIR

WIDEST = 100
READ = [
    *PROJECT_DIR.glob("*.md"),
    *(PROJECT_DIR / "docs").rglob("*.md"),
    *(PROJECT_DIR / "benchmarks").glob("*.md"),
    *(PROJECT_DIR / "sql").rglob("*.sql"),
    *(PROJECT_DIR / "scripts").glob("*.sh"),
    *(PROJECT_DIR / "tests" / "project").glob("*.sh"),
    *(PROJECT_DIR / name for name in ("db", "Makefile", "Dockerfile", "docker-compose.yml")),
]


def find_wide_lines(path: Path) -> Iterator[str]:
    is_code = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        is_code ^= line.lstrip().startswith("```") and path.suffix == ".md"
        may_be_wide = (
            is_code or line.startswith(("|", "    "))
            if path.suffix == ".md"
            else not re.match(r"\s*(#|--) \S", line)
        )
        if len(line) > WIDEST and not may_be_wide and not re.search(r"https?://", line):
            yield f"line {number}: {len(line)} columns"


def test_no_line_is_wider_than_it_must_be() -> None:
    found = {path.relative_to(PROJECT_DIR): list(find_wide_lines(path)) for path in READ}
    assert not {str(path): wide for path, wide in found.items() if wide}
