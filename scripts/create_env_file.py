#!/usr/bin/env python3
"""Write .env from .env.example with the database's absolute path; an existing .env stays."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parents[1]


def make_env_text(example: str, database: Path) -> str:
    """Given the template, return it with the path of the database."""
    # Single quotes keep its spaces and #, and a quote inside is escaped.
    quoted = str(database).replace("\\", "\\\\").replace("'", "\\'")
    lines = [
        f"DATABASE_PATH='{quoted}'" if line.startswith("DATABASE_PATH=") else line
        for line in example.splitlines()
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    target = PROJECT_DIR / ".env"
    text = make_env_text((PROJECT_DIR / ".env.example").read_text(), PROJECT_DIR / "backtesting.db")

    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return 0

    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    print(f"wrote {target}: put your POLYGON_API_KEY into it", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
