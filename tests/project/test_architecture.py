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
    *(PROJECT_DIR / name for name in ("README.md", "CONTRIBUTING.md")),
    *(PROJECT_DIR / "docs").glob("*.md"),
    *PACKAGE.rglob("*.py"),
    *(PROJECT_DIR / "scripts").glob("*.py"),
]
POINTER = re.compile(
    r"(?<![\w/.-])((?:scripts|docs|sql|tests|benchmarks|market|backups|health)/[\w/.-]+\.(?:py|md|sql|sh))\b"
)
SEEN_FROM = (PROJECT_DIR, PACKAGE, PROJECT_DIR / "scripts")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT_DIR)))
def test_every_file_that_is_named_is_there(document: Path) -> None:
    named = set(POINTER.findall(document.read_text()))
    missing = [name for name in named if not any((base / name).is_file() for base in SEEN_FROM)]
    assert not missing


def test_helper_of_the_tests_has_a_name_of_its_own() -> None:
    named = Counter(
        node.name
        for path in (PROJECT_DIR / "tests" / "support").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith(("make_", "running_"))
    )
    assert [name for name, count in named.items() if count > 1] == []
