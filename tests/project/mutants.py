"""Mutation tests of what keeps data: change a line of a module, and see whether its tests notice.

`./db test-mutants` takes every module of MODULES, `./db test-mutants retention` one. It ends with 1
when a mutant survives that docs/MUTANTS.md does not explain.

Why not a tool from PyPI: mutmut 3 switches its mutants on inside one process, and half of what is
tested here runs in processes of its own; cosmic-ray starts pytest anew for each mutant, which is
five to ten times as long as most of these tests. Here each mutant is written into a copy of the
project, and a fork of a process that has pytest loaded already runs the tests there.
"""

import argparse
import ast
import copy
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

PROJECT_DIR = Path(__file__).parents[2]
EXPLAINED = PROJECT_DIR / "docs" / "MUTANTS.md"
PACKAGE = "scripts/backtestdb"
# Each with the fast tests that are about it, the likeliest first: the first that fails ends a run.
# `file` or, where only some of a file are fast, `file::test`.
MODULES: dict[str, tuple[str, ...]] = {
    "backups/retention": ("backups/test_retention", "backups/test_flushes"),
    "backups/shrinkage": ("backups/test_shrinkage_rules", "backups/test_retention"),
    "backups/identity": ("backups/test_identity_rules", "backups/test_restore_choice"),
    "backups/catalogue": ("backups/test_catalogue_rules",),
    "backups/snapshot": (
        "backups/test_snapshot_rules",
        "backups/test_snapshot::test_snapshot_keeps_its_lock_until_it_has_settled",
        "backups/test_snapshot::test_snapshot_holds_what_was_committed_while_it_was_copied_ahead",
        "backups/test_snapshot::"
        "test_snapshot_whose_patching_takes_too_long_is_patched_to_its_end_in_the_last_round",
    ),
    "backups/verify": ("backups/test_verify",),
    "backups/precopy": ("backups/test_precopy", "backups/test_flushes"),
    "pinned_copy": (
        "test_pinned_copy",
        "backups/test_flushes::test_copy_is_flushed_as_it_grows_unless_writers_wait_for_it",
    ),
    "backups/unlocked_copy": ("backups/test_unlocked_copy_rules",),
    "backups/manifest": ("backups/test_manifest",),
    "backups/restore": ("backups/test_restore_rules",),
    "backups/backup": ("backups/test_backup_rules",),
    "backups/adopt": ("backups/test_adopt",),
    "backups/content_hash": ("backups/test_content_hash",),
    "backups/leftovers": ("backups/test_leftovers",),
    "backups/known_folders": ("backups/test_known_folders",),
    "backups/backup_dir": ("backups/test_backup_dir",),
    "backups/restore_choice": ("backups/test_restore_choice",),
    "replace": ("test_replace", "backups/test_flushes"),
    "free_name": ("test_free_name",),
    "table_copy": ("test_table_copy",),
    "plain_tables": ("test_plain_tables",),
    "salvage/union": ("salvage/test_union",),
    "salvage/sources": ("salvage/test_sources",),
    "salvage/rows": ("salvage/test_rows",),
    "salvage/salvage": ("salvage/test_salvage_rules",),
    "salvage/build": ("salvage/test_build",),
    "salvage/pages": ("salvage/test_pages",),
    "salvage/records": ("salvage/test_records",),
    "salvage/proofs": ("salvage/test_proofs",),
    "salvage/objects": ("salvage/test_objects",),
    "salvage/scan": ("salvage/test_scan",),
    "salvage/trees": ("salvage/test_trees",),
    "salvage/shapes": ("salvage/test_shapes",),
    "salvage/working_copy": ("salvage/test_working_copy",),
    "salvage/orphans": ("salvage/test_orphans",),
    "backups/generated_scripts": (
        "backups/test_generated_scripts_rules",
        "backups/test_generated_scripts::test_copied_folder_keeps_names_times_and_links",
        "backups/test_generated_scripts::"
        "test_names_that_differ_only_in_case_are_noticed_where_the_disk_ignores_it",
    ),
    "backups/drill": ("backups/test_drill_rules",),
    "backups/named": ("backups/test_named",),
    "backups/forecast": ("backups/test_forecast_rules",),
    "backups/report": ("backups/test_report",),
    "files": ("test_files",),
    "commit_counter": ("test_commit_counter",),
    "backups/cli": ("backups/test_cli",),
    "schema": (
        "test_schema_rules",
        "test_schema::test_statements_of_a_file_end_at_their_semicolons_only",
        "test_schema::test_statement_without_its_semicolon_is_refused_not_left_out",
        "test_schema::test_class_of_a_table_is_its_folder_and_of_an_unknown_one_irreplaceable",
        "test_schema::test_tables_to_keep_are_those_that_no_download_brings_back",
        "test_schema::test_migration_may_only_add_columns",
        "test_schema::test_migration_that_fails_leaves_nothing",
        "test_schema::test_migration_joins_the_transaction_of_its_caller",
    ),
    "database": ("test_database_rules", "test_database"),
}
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq, ast.LtE, ast.GtE),
    ast.NotEq: (ast.Eq, ast.Lt, ast.Gt),
    ast.Lt: (ast.LtE, ast.GtE, ast.NotEq),
    ast.LtE: (ast.Lt, ast.Gt, ast.Eq),
    ast.Gt: (ast.GtE, ast.LtE, ast.NotEq),
    ast.GtE: (ast.Gt, ast.Lt, ast.Eq),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
# A failing example need not be made small: `mutants` in tests/conftest.py.
PYTEST_OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile", "mutants")
SHORTEST_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Mutant:
    """`name`: what was changed, without a line number, as docs/MUTANTS.md has it."""

    name: str
    line: int
    source: str


# ── making them


def make_mutants(source: str) -> list[Mutant]:
    """Given a module's text, return it once for each change, each with exactly one."""
    mutants = {}
    for function, node in walk(ast.parse(source), "module"):
        for new in change(node):
            mutated = splice(source, node, new)
            name = f"{function}: {describe(source, mutated, node, new)}"
            mutants.setdefault(name, Mutant(name, node.lineno, mutated))
    return list(mutants.values())


def describe(source: str, mutated: str, node: ast.expr | ast.stmt, new: str) -> str:
    """The line before and after, or the whole of what reaches over several."""
    if node.lineno == node.end_lineno:
        place = node.lineno - 1
        before, after = (text.splitlines()[place] for text in (source, mutated))
    else:
        before, after = ast.unparse(node), new
    return f"{shorten(before)} → {shorten(after)}"


def walk(node: ast.AST, function: str) -> Iterator[tuple[str, ast.expr | ast.stmt]]:
    """Every expression and statement below `node`, with the name of the function that it is in."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = node.name if function == "module" else f"{function}.{node.name}"
    for field, value in ast.iter_fields(node):
        # Types say nothing at run time, and a row of one value has no other place.
        if field in {"annotation", "returns", "decorator_list"} or is_place_in_row(node, field):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.expr | ast.stmt):
                yield function, child
            # Python tells where the parts of an f-string stand only since 3.12.
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield from walk(child, function)


def is_place_in_row(node: ast.AST, field: str) -> bool:
    return (
        field == "slice"
        and isinstance(node, ast.Subscript)
        and ast.unparse(node.value).endswith("fetchone()")
    )


def change(node: ast.expr | ast.stmt) -> Iterator[str]:
    """Every text that stands for a plausible mistake at this node."""
    match node:
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield "return None"
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise():
            yield "pass"
        case ast.Break() | ast.Continue():
            yield "pass"
        case ast.IfExp():
            yield f"({ast.unparse(node.body)})"
            yield f"({ast.unparse(node.orelse)})"
        case ast.Constant(value=bool()):
            yield str(not node.value)
        case ast.Constant(value=int() | float()):
            yield f"({node.value + 1})"
            yield f"({node.value - 1})"
        case ast.expr():
            yield from change_operator(node)


def change_operator(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                for other in comparisons(node, operator):
                    changed = copy.deepcopy(node)
                    changed.ops[place] = other()
                    yield f"({ast.unparse(changed)})"
        case ast.BoolOp():
            changed_bool = copy.deepcopy(node)
            changed_bool.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield f"({ast.unparse(changed_bool)})"
        case ast.UnaryOp(op=ast.Not()):
            yield f"({ast.unparse(node.operand)})"
        case ast.UnaryOp(op=ast.USub()):
            yield f"(+{ast.unparse(node.operand)})"
        case ast.BinOp() if type(node.op) in ARITHMETIC and not (
            is_word(node.left) or is_word(node.right)
        ):
            changed_arithmetic = copy.deepcopy(node)
            changed_arithmetic.op = ARITHMETIC[type(node.op)]()
            yield f"({ast.unparse(changed_arithmetic)})"


def comparisons(node: ast.Compare, operator: ast.cmpop) -> tuple[type[ast.cmpop], ...]:
    """Nothing compares the order of words; their equality is what can be wrong."""
    words = [one for one in (node.left, *node.comparators) if is_word(one)]
    return COMPARISONS[type(operator)][: 1 if words else None]


def is_word(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, str | bytes)


def splice(source: str, node: ast.expr | ast.stmt, new: str) -> str:
    """The text with `new` in the place of `node`; columns count bytes of UTF-8."""
    lines = source.encode().splitlines(keepends=True)
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    before, after = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
    return b"".join([*lines[:first], before, new.encode(), after, *lines[last + 1 :]]).decode()


def shorten(text: str) -> str:
    text = " ".join(text.split()).replace("`", "'")
    return text if len(text) <= 240 else f"{text[:160]} … {text[-75:]}"


# ── running them


def run_tests(tests: Sequence[str], timeout_seconds: float, loaded: Path | None = None) -> str:
    """Run pytest in a fork, in the current folder; return passed, failed or timeout. Write the
    names of what it imported from elsewhere to `loaded`."""
    child = os.fork()
    if child == 0:
        os.setsid()
        code = 9
        try:
            silence()
            code = int(pytest.main([*PYTEST_OPTIONS, *tests]))
            if loaded:
                loaded.write_text("\n".join(modules_from_elsewhere()))
        finally:
            os._exit(code)
    deadline = time.monotonic() + timeout_seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return "passed" if os.waitstatus_to_exitcode(status) == 0 else "failed"
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "timeout"
        time.sleep(0.02)


def silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)


def copy_project_to(folder: Path) -> Path:
    """The tests' helper for that, forgotten afterwards: the tests in the copy have one of their
    own."""
    support = str(PROJECT_DIR / "tests" / "support")
    sys.path.insert(0, support)
    copied: Path = import_module("commands").copy_project(folder)
    sys.path.remove(support)
    del sys.modules["commands"]
    return copied


def modules_from_elsewhere() -> Iterator[str]:
    here = str(Path.cwd())
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and not file.startswith(here):
            yield name


def preload(names: Sequence[str]) -> None:
    """Once here instead of once in each fork."""
    for name in names:
        with suppress(Exception):
            import_module(name)


def try_module(module: str, folder: Path, match: str, chosen: slice) -> tuple[int, list[Mutant]]:
    """Return how many mutants were tried and those that no test noticed."""
    named = (test.partition("::") for test in MODULES[module])
    tests = [f"tests/{file}.py{colons}{test}" for file, colons, test in named]
    path = folder / PACKAGE / f"{module}.py"
    original = path.read_text()
    started = time.monotonic()
    loaded = folder / "loaded"
    if run_tests(tests, 1800, loaded) != "passed":
        raise SystemExit(f"{module}: its tests fail without any change: {' '.join(tests)}")
    preload(loaded.read_text().split("\n"))
    timeout_seconds = max(5 * (time.monotonic() - started), SHORTEST_TIMEOUT_SECONDS)

    survivors = []
    mutants = [one for one in make_mutants(original) if match in one.name][chosen]
    for number, mutant in enumerate(mutants, 1):
        path.write_text(mutant.source)
        result = run_tests(tests, timeout_seconds)
        if result == "passed":
            survivors.append(mutant)
        print(
            f"{number}/{len(mutants)} {result:8}{module}.py:{mutant.line} {mutant.name}", flush=True
        )
    path.write_text(original)
    return len(mutants), survivors


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(MODULES)}; all without")
    parser.add_argument("--match", default="", help="only those with this text in their name")
    parser.add_argument("--from", dest="first", type=int, default=0, help="leave out the first N")
    parser.add_argument("--count", type=int, help="take N of each module")
    given = parser.parse_args()
    modules = [
        name for name in MODULES if not given.modules or {name, Path(name).name} & {*given.modules}
    ]
    explained = " ".join(EXPLAINED.read_text().split())  # a name may go on in the next line
    last = given.first + given.count if given.count else None

    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    unexplained = 0
    lines = []
    with tempfile.TemporaryDirectory(prefix="mutants ") as name:
        folder = copy_project_to(Path(name) / "project")
        os.chdir(folder)
        for module in modules:
            tried, survivors = try_module(module, folder, given.match, slice(given.first, last))
            new = [mutant for mutant in survivors if f"`{mutant.name}`" not in explained]
            unexplained += len(new)
            lines += [f"SURVIVED {module}.py:{mutant.line} `{mutant.name}`" for mutant in new]
            lines.append(
                f"{module}: {tried} mutants, {tried - len(survivors)} noticed, "
                f"{len(survivors) - len(new)} explained, {len(new)} survived"
            )
    print("\n".join(lines))
    return 1 if unexplained else 0


if __name__ == "__main__":
    raise SystemExit(main())
