"""The measures of the benchmarks, which take too long to be run here."""

import ast
from pathlib import Path

import pytest

import benchmarks

FILES = sorted(Path(benchmarks.__path__[0]).rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_function_has_a_value_of_its_own_by_the_name_of_one_that_it_calls(file: Path) -> None:
    """Else it fails where it calls it, which is when an hour of measuring is over; the type checker passes it."""
    module = ast.parse(file.read_text("utf-8"))
    there = {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    imports = [node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
    there |= {(name.asname or name.name).partition(".")[0] for node in imports for name in node.names}
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            within = list(ast.walk(function))
            called = {n.func.id for n in within if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
            own = {n.id for n in within if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            assert not there & called & own, function.name
