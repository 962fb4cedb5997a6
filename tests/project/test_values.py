"""Values say what they are: a call names what it passes, an INSERT names its columns, and SQL is
no text that is put together by replacing."""

import ast
import re
from collections.abc import Iterator

from commands import PROJECT_DIR

TREES = {
    str(path.relative_to(PROJECT_DIR)): ast.parse(path.read_text())
    for path in sorted((PROJECT_DIR / "scripts").rglob("*.py"))
}
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


def read_texts(tree: ast.Module) -> Iterator[str]:
    """Strings of a module, those with names in them as `{}`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [
                str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
            ]
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_dataclass_of_five_fields_and_more_is_passed_by_name() -> None:
    assert not [
        f"{name}: {found}" for name, tree in TREES.items() for found in find_long_dataclasses(tree)
    ]


# `SELECT *` between two tables made by one statement is SQLite's fast copy, which takes no names.
POSITIONAL_INSERT = re.compile(
    r"\b(?:INSERT|REPLACE)\b[\w ]*\bINTO\s+[\w.\"{}]+\s+(?:VALUES|SELECT (?!\*))", re.IGNORECASE
)


def test_insert_names_its_columns() -> None:
    assert not [
        f"{name}: {found}"
        for name, tree in TREES.items()
        for text in read_texts(tree)
        for found in POSITIONAL_INSERT.findall(text)
    ]


def test_sql_is_run_as_it_stands() -> None:
    assert not [
        f"{name}: {ast.unparse(node.func)}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and is_call_of(node, "replace")
        if re.search(r"SQL|sql|QUERIES|SELECT|INSERT", ast.unparse(node.func))
    ]
