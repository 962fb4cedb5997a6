"""No comprehension makes the same collection again for each of its elements: with 8,000 tickers a
first fill of the whole market asked for 17 times as long."""

import ast

from commands import PROJECT_DIR

Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def names_in(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def is_collection(node: ast.AST) -> bool:
    """A union of dicts, a list by a loop, a set of something."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return bool(node.args) and node.func.id in {"dict", "frozenset", "list", "set", "sorted"}
    return isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp) or (
        isinstance(node, ast.Dict) and None in node.keys
    )


def find_repeated(source: str) -> list[str]:
    """Return what a comprehension makes anew for each element though nothing of that is in it."""
    found = []

    def visit(node: ast.AST, bound: set[str] | None) -> None:
        if bound is not None and is_collection(node) and not names_in(node) & bound:
            found.append(ast.unparse(node))
        if isinstance(node, Comprehension):
            own = set().union(*(names_in(loop.target) for loop in node.generators))
            visit(node.generators[0].iter, bound)
            inner = own | (bound or set())
            for loop in node.generators:
                for condition in loop.ifs:
                    visit(condition, inner)
            for loop in node.generators[1:]:
                visit(loop.iter, inner)
            parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            for part in parts:
                visit(part, inner)
        else:
            for child in ast.iter_child_nodes(node):
                visit(child, bound)

    visit(ast.parse(source), None)
    return found


def test_collection_made_for_each_element_is_found() -> None:
    assert find_repeated("[{**a, **b}[t] for t in c]") == ["{**a, **b}"]
    assert find_repeated("[t for t in c if t in set(a)]") == ["set(a)"]
    assert find_repeated("[t for t in set(c) if t in {x for x in t}]") == []


def test_no_comprehension_makes_the_same_collection_for_each_element() -> None:
    found = {
        f"{path.relative_to(PROJECT_DIR)}: {what}"
        for path in (PROJECT_DIR / "scripts").rglob("*.py")
        for what in find_repeated(path.read_text())
    }
    assert found == set()
