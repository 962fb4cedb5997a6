"""docs/ARCHITECTURE.md points at what is there, and so do the docstrings and documents."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from commands import PROJECT_DIR

PACKAGE = PROJECT_DIR / "scripts" / "backtestdb"
ARCHITECTURE = (PROJECT_DIR / "docs" / "ARCHITECTURE.md").read_text()
ANSWERS = re.findall(r"^\| [^|]+ \| `([\w/]+\.py)` \| `(\w+)` \|$", ARCHITECTURE, re.MULTILINE)


def test_table_of_answers_has_thirty_and_more() -> None:
    assert len(ANSWERS) >= 30


@pytest.mark.parametrize(
    ("file", "name"), ANSWERS, ids=[f"{file}:{name}" for file, name in ANSWERS]
)
def test_named_file_defines_what_the_table_promises(file: str, name: str) -> None:
    defined = set()
    for node in ast.parse((PACKAGE / file).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined.add(node.target.id)
    assert name in defined


def test_every_room_stands_in_the_tree() -> None:
    rooms = {
        path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert rooms <= set(re.findall(r"\b(\w+)/", ARCHITECTURE))


DOCUMENTS = [
    *PROJECT_DIR.glob("*.md"),
    *(PROJECT_DIR / "docs").rglob("*.md"),
    *(PROJECT_DIR / "sql").rglob("*.sql"),
    *(path for path in (PROJECT_DIR / "tests").rglob("*.py") if path != Path(__file__)),
    *(PROJECT_DIR / "benchmarks").glob("*.*"),
    *(PROJECT_DIR / "scripts").rglob("*.py"),
    *(PROJECT_DIR / "scripts").glob("*.sh"),
    *(PROJECT_DIR / name for name in (".env.example", "Dockerfile", "docker-compose.yml")),
]
ROOMS = [path.name for path in PACKAGE.iterdir() if path.is_dir()]
FOLDERS = ["scripts", "docs", "sql", "tests", "benchmarks", "support", "end_to_end", *ROOMS]
POINTER = re.compile(
    rf"(?<![\w/.-])((?:{'|'.join(FOLDERS)})/[\w/.-]+\.(?:py|md|sql|sh|csv|json|yml|html|css|js))\b"
)
SEEN_FROM = (PROJECT_DIR, PACKAGE, PROJECT_DIR / "scripts", PROJECT_DIR / "tests")
# A module named without its folder, in code and documents; tests name made-up scripts.
MODULE = re.compile(r"(?<![\w/.*-])([a-z_0-9]+\.(?:py|sh))\b")
PRINTED_IN_THE_GUIDE = {"apply_pages.py"}  # a script that the user copies from there


def test_every_file_that_is_named_is_there() -> None:
    missing = [
        f"{document.relative_to(PROJECT_DIR)}: {name}"
        for document in DOCUMENTS
        for name in set(POINTER.findall(document.read_text()))
        if not any((base / name).is_file() for base in SEEN_FROM)
    ]
    assert not missing


def test_every_module_that_is_named_is_there() -> None:
    there = {
        path.name
        for folder in ("scripts", "tests", "benchmarks")
        for path in (PROJECT_DIR / folder).rglob("*.*")
    }
    missing = [
        f"{document.relative_to(PROJECT_DIR)}: {name}"
        for document in DOCUMENTS
        if PROJECT_DIR / "tests" not in document.parents
        for name in set(MODULE.findall(document.read_text())) - there - PRINTED_IN_THE_GUIDE
    ]
    assert not missing


def test_helper_of_the_tests_has_a_name_of_its_own() -> None:
    named = Counter(
        node.name
        for path in (PROJECT_DIR / "tests" / "support").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith(("make_", "running_"))
    )
    assert [name for name, count in named.items() if count > 1] == []
