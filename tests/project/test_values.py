"""Values say what they are: a call names what it passes."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import PROJECT_DIR

MODULES = sorted((PROJECT_DIR / "scripts").rglob("*.py"))
MOST_POSITIONAL_FIELDS = 4


def is_call_of(node: ast.AST, name: str) -> bool:
    called = node.func if isinstance(node, ast.Call) else node
    return getattr(called, "id", getattr(called, "attr", "")) == name


def is_keyword_only(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and any(
        keyword.arg == "kw_only" and ast.unparse(keyword.value) == "True"
        for keyword in decorator.keywords
    )


def count_positional_fields(node: ast.ClassDef) -> int:
    """How many values the dataclass takes without their names; what follows `_: KW_ONLY` is not
    among them."""
    count = 0
    for line in node.body:
        if isinstance(line, ast.AnnAssign):
            if "KW_ONLY" in ast.unparse(line.annotation):
                break
            count += "ClassVar" not in ast.unparse(line.annotation)
    return count


def find_long_dataclasses(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                if is_call_of(decorator, "dataclass") and not is_keyword_only(decorator):
                    count = count_positional_fields(node)
                    if count > MOST_POSITIONAL_FIELDS:
                        yield f"{node.name}: {count} fields that a call may pass without a name"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PROJECT_DIR)))
def test_dataclass_of_five_fields_and_more_is_passed_by_name(path: Path) -> None:
    assert not list(find_long_dataclasses(ast.parse(path.read_text())))
