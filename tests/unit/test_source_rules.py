"""The limits that CONTRIBUTING.md names: sizes of files and functions, and who may do what."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "rlsync"
FILE_LINES, KERNEL_FILE_LINES = 300, 400
FUNCTION_LINES, KERNEL_LINES = 50, 120
TAKE_THE_WHOLE_CONFIGURATION = {"config", "controller", "cluster"}
WRITES_ENVIRONMENT = "cluster/env.py"


def _sources() -> Iterator[tuple[str, ast.Module, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        yield str(path.relative_to(PACKAGE)), ast.parse(text), text


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def too_long(name: str, tree: ast.Module, text: str) -> list[str]:
    """What is longer than CONTRIBUTING.md allows in the file `name` of the package."""
    kernel = name.startswith("kernels/")
    file_lines, lines = len(text.splitlines()), KERNEL_LINES if kernel else FUNCTION_LINES
    found = [f"{name} has {file_lines} lines"] if file_lines > (KERNEL_FILE_LINES if kernel else FILE_LINES) else []
    for function in _functions(tree):
        length = (function.end_lineno or 0) - function.lineno + 1
        if length > lines:
            found.append(f"{name}: {function.name} has {length} lines")
    return found


def takes_train_config(name: str, tree: ast.Module) -> list[str]:
    """Functions that take the whole configuration although they read a part of it."""
    if name.split("/")[0] in TAKE_THE_WHOLE_CONFIGURATION:
        return []
    arguments = [(f, a) for f in _functions(tree) for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs)]
    annotated = [(f, ast.unparse(a.annotation)) for f, a in arguments if a.annotation is not None]
    return [f"{name}: {function.name}" for function, annotation in annotated if "TrainConfig" in annotation]


def writes_environment(tree: ast.Module) -> bool:
    """Whether the code changes os.environ."""
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else []
        if any(isinstance(t, ast.Subscript) and ast.unparse(t.value) == "os.environ" for t in targets):
            return True
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {
            f"os.environ.{method}" for method in ("update", "setdefault", "pop", "clear")
        }:
            return True
    return False


def test_files_and_functions_are_short():
    assert [line for name, tree, text in _sources() for line in too_long(name, tree, text)] == []


def test_components_take_the_part_of_the_configuration_that_they_read():
    assert [line for name, tree, _ in _sources() for line in takes_train_config(name, tree)] == []


def test_the_environment_is_written_in_one_file():
    assert [name for name, tree, _ in _sources() if writes_environment(tree)] == [WRITES_ENVIRONMENT]


@pytest.mark.parametrize("statement", ["os.environ['A'] = 'b'", "os.environ.update(a)", "del os.environ['A']"])
def test_control_a_breach_is_found(statement):
    long = "def f(config: TrainConfig):\n" + "    x = 1\n" * FILE_LINES + f"    {statement}\n"
    tree = ast.parse(long)
    assert len(too_long("trainer/x.py", tree, long)) == 2
    assert takes_train_config("trainer/x.py", tree) == ["trainer/x.py: f"]
    assert takes_train_config("controller/x.py", tree) == []
    assert writes_environment(tree)
    assert not writes_environment(ast.parse("x = os.environ['A']"))
