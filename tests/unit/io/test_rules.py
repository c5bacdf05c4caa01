"""What the room promises about its own source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import unigpu._io

FOLDER = Path(unigpu._io.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))
LIBRARIES = ("httpx", "httpcore", "tenacity", "anyio", "h11")


def name_of(file: Path) -> str:
    return file.relative_to(FOLDER).as_posix()


def imports(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found


def test_each_library_is_imported_where_the_design_says() -> None:
    where: dict[str, set[str]] = {name: set() for name in LIBRARIES}
    for file in FILES:
        for name in imports(ast.parse(file.read_text("utf-8"))) & set(LIBRARIES):
            where[name].add(name_of(file))
    assert where["httpx"] == {"http/user_transport.py"}
    assert where["httpcore"] == {"http/core_request.py", "http/network.py", "http/pool.py"}
    assert where["tenacity"] == {"resilience/retry.py"}
    assert where["h11"] == set()


def test_no_private_attribute_of_a_library_is_used() -> None:
    """Only names that begin with one underscore on ``self``, ``cls`` or a name of this package are allowed."""
    private: list[str] = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
                continue
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                continue
            private.append(f"{name_of(file)}: {ast.unparse(node)}")
    # `asyncio._unregister_task` is documented for task classes of one's own ("Extending asyncio")
    assert private == ["shield.py: asyncio._unregister_task"]


def test_no_private_module_of_a_library_is_imported() -> None:
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            module = node.module or "" if isinstance(node, ast.ImportFrom) and node.level == 0 else ""
            assert not any(part.startswith("_") and part != "__future__" for part in module.split(".")), file
            if isinstance(node, ast.ImportFrom) and module.split(".")[0] in LIBRARIES:
                assert not any(alias.name.startswith("_") for alias in node.names), file


def test_the_contract_needs_the_standard_library_only() -> None:
    tree = ast.parse((FOLDER / "contract.py").read_text("utf-8"))
    allowed = {*sys.stdlib_module_names, "unigpu", "errors", ""}
    assert imports(tree) <= allowed


def test_no_file_is_too_long_to_hold_one_idea() -> None:
    assert {name_of(file): n for file in FILES if (n := len(file.read_text("utf-8").splitlines())) > 450} == {}


@pytest.mark.parametrize("module", ["unigpu._io.http.client", "unigpu._io.resilience.retry", "unigpu._io.in_memory"])
def test_importing_opens_nothing_and_does_not_load_httpx(module: str) -> None:
    code = (
        "import sys\n"
        "sys.modules['trio'] = None\n"  # where it is installed, trio itself runs ldconfig when it is imported
        "def hook(event, args):\n"
        "    if event.startswith(('socket.', 'subprocess.', 'os.system')) and event != 'socket.__new__':\n"
        "        raise SystemExit(f'{event} while importing')\n"
        "sys.addaudithook(hook)\n"
        f"import {module}\n"
        "print(sorted(set(sys.modules) & {'httpx', 'rich', 'click', 'respx'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
