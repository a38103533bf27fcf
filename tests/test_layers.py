"""The layers hold: an import only points down, jit options stand in one file, fastem imports nothing heavy."""

import ast
import importlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from numba.core import config
from numba.core.registry import CPUDispatcher

from fastem.kernels import components, sweep
from fastem.kernels._jit import _Inner

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "fastem"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# What each layer may import, besides the standard library and its own layer.
ALLOWED = {
    "kernels": {"numpy", "numba", "llvmlite", "threadpoolctl"},
    "protocol": {"numpy"},
    "data": {"numpy"},
    "labels": {"numpy", "data"},
    "sequences": {"numpy", "data"},
    "sources": {"numpy", "pyarrow", "data"},
    "families": {"numpy", "scipy", "kernels", "protocol", "data"},
    "initialize": {"numpy", "scipy", "kernels", "protocol", "data", "labels"},
    "models": {"numpy", "families", "kernels", "protocol", "data", "labels", "sequences", "initialize"},
    "acceleration": {"numpy", "protocol"},
    "climb": {"numpy", "protocol", "acceleration"},
    "race": {"numpy", "protocol", "data", "acceleration", "climb"},
    "epochs": {"numpy", "protocol", "data", "acceleration", "climb", "online"},
    "em": {"numpy", "protocol", "data", "labels", "sources", "acceleration", "climb", "race", "epochs", "online"},
    "drift": {"numpy", "scipy"},
    "online": {"numpy", "protocol", "data", "sequences", "drift"},
    "inference": {"numpy", "scipy", "protocol", "data", "em"},
    "persistence": {"numpy", "protocol", "families", "models", "sequences", "online", "drift"},
    "tables": {"numpy", "pyarrow", "persistence"},
    "report": {"tqdm"},
    "arguments": set(),
    "stream_command": {"numpy", "online", "data", "tables", "report", "arguments"},
    "pictures": {"numpy", "matplotlib", "persistence"},
}
STANDARD = set(sys.stdlib_module_names)


def layer_of(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: pathlib.Path) -> set[str]:
    """Top-level packages imported anywhere in a file; fastem's own by their layer."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            found.add(parts[0] if parts[0] != "fastem" or len(parts) == 1 or parts[1] == "__version__" else parts[1])
    return found


@pytest.mark.parametrize("path", [p for p in SOURCES if layer_of(p) in ALLOWED], ids=lambda p: p.stem)
def test_imports_point_down(path):
    layer = layer_of(path)
    assert imports_of(path) - STANDARD - {layer, "fastem"} <= ALLOWED[layer]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_jit_options_stand_in_one_file(path):
    if path.name == "_jit.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            assert name not in {"njit", "jit", "vectorize", "guvectorize", "jitclass"}, f"{path.name}:{node.lineno}"
        if isinstance(node, ast.keyword):
            assert node.arg != "fastmath", f"{path.name}: fastmath outside _jit.py"


def called_by_python(tree: ast.AST) -> set[str]:
    """Names called anywhere but in functions with decorators."""
    found, todo = set(), [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef) and any(isinstance(d, ast.Name) for d in node.decorator_list):
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add(node.func.id)
        todo.extend(ast.iter_child_nodes(node))
    return found


@pytest.mark.skipif(config.DISABLE_JIT, reason="Python enters all kernels")
def test_kernels_that_python_calls_have_an_entry_from_there():
    found = 0
    for path in SOURCES:
        name = ".".join(("fastem", *path.relative_to(PACKAGE).with_suffix("").parts))
        if path.stem in {"__init__", "__main__", "pictures", "exp_log"}:  # the last calls none but without numba
            continue
        for called in called_by_python(ast.parse(path.read_text())):
            kernel = getattr(importlib.import_module(name), called, None)
            assert not isinstance(kernel, _Inner), f"{name} calls {called}, which is not decorated by from_python"
            found += isinstance(kernel, CPUDispatcher)
    assert found > 10
    chosen = [*components.kernels_of(8, 2), *components.kernels_of(8, 64)]  # which Python calls by other names
    chosen += [sweep.runner_for(np.zeros((n, 1))) for n in (1, 2)]
    assert len(set(chosen)) == 6
    assert all(type(kernel) is CPUDispatcher for kernel in chosen)


def test_sklearn_is_imported_by_estimators_only():
    for path in SOURCES:
        if layer_of(path) not in {"estimators", "selection", "cli", "demo"}:
            assert "sklearn" not in imports_of(path), path


def test_kernels_take_few_arguments_at_the_entries():
    source = ast.parse((PACKAGE / "kernels" / "sweep.py").read_text())
    entries = [n for n in source.body if isinstance(n, ast.FunctionDef) and n.name.startswith("take_")]
    assert {entry.name for entry in entries} == {"take_lanes", "take_rows", "take_weights"}
    assert all(len(entry.args.args) <= 11 for entry in entries)


def test_import_is_light():
    code = "import sys, fastem; print(sorted({'numba', 'sklearn', 'scipy', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "[]"
