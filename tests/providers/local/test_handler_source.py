"""The code of a deployment: found as the worker finds it, without running it, and any edit is seen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu.errors import ConfigurationError
from unigpu.models import DeploymentSpec
from unigpu.providers.local import handler_source
from unigpu.providers.local.handler_source import content_of, find_handler, fingerprint


def spec(handler: str | None = None, **fields: Any) -> DeploymentSpec:
    return DeploymentSpec(name="a", **({"handler": handler} if handler else {}), **fields)


def make(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_module_a_package_and_a_file_are_found_from_the_working_directory(tmp_path: Path) -> None:
    make(tmp_path, **{"app.py": "def f(i): ...\n", "pkg/__init__.py": ""})
    make(tmp_path, **{"pkg/sub/__init__.py": "def g(i): ...\n", "pkg/mod.py": "class C: ...\n", "d/x.py": "f = 1\n"})
    for target, file, root in (
        ("app:f", "app.py", "."),
        ("pkg.mod:C", "pkg/mod.py", "pkg"),
        ("pkg.sub:g", "pkg/sub/__init__.py", "pkg"),
        ("d/x.py:f", "d/x.py", "d"),
        (str(tmp_path / "app.py") + ":f", "app.py", "."),
    ):
        found = find_handler(target, cwd=tmp_path)
        assert (found.file, found.root) == (tmp_path / file, (tmp_path / root).resolve()), target
        assert found.import_from is None or target.startswith(("d/", "/"))


def test_another_function_of_the_same_file_is_another_handler(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def one(input): return 1\ndef two(input): return 2\n")
    one, two, also_one = (
        content_of(spec(target), cwd=str(tmp_path)).items for target in ("app:one", "app:two", "app.py:one")
    )
    assert one["code"] == two["code"]
    assert one["handler"] != two["handler"]
    assert one == also_one


def test_a_module_that_only_this_program_can_import_tells_where_from(tmp_path: Path, monkeypatch: Any) -> None:
    make(tmp_path, **{"scripts/deep_one.py": "def f(i): ...\n", "scripts/deep_pkg/__init__.py": "def f(i): ...\n"})
    monkeypatch.syspath_prepend(str(tmp_path / "scripts"))
    assert find_handler("deep_one:f", cwd=tmp_path).import_from == tmp_path / "scripts"
    assert find_handler("deep_pkg:f", cwd=tmp_path).import_from == tmp_path / "scripts"


def test_an_installed_module_is_watched_alone_not_with_all_that_is_installed(tmp_path: Path) -> None:
    installed = find_handler("h11:Connection", cwd=tmp_path)
    assert installed.root.name == "h11"
    assert installed.import_from is None
    alone = find_handler("typing_extensions:TypeVar", cwd=tmp_path)
    assert alone.root == alone.file


def test_nothing_of_the_users_is_run(tmp_path: Path) -> None:
    make(tmp_path, **{"trap_x.py": "raise SystemExit('it was run')\ndef f(i): ...\n", "trap_p/__init__.py": "1/0\n"})
    make(tmp_path, **{"trap_p/m.py": "1/0\ndef f(i): ...\n"})
    before = set(sys.modules)
    assert content_of(spec("trap_x:f"), cwd=str(tmp_path)).origin == str(tmp_path)
    assert content_of(spec("trap_p.m:f"), cwd=str(tmp_path)).origin == str(tmp_path / "trap_p")
    assert not {m for m in set(sys.modules) - before if m.startswith("trap")}


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("app:summarise", "has no 'summarise' at its top; did you mean 'summarize'"),
        ("ap:summarize", "no module 'ap'.*did you mean 'app'"),
        ("ap.py:summarize", "no file .*ap.py; did you mean app.py"),
        ("pkg.nope:f", "no module 'pkg.nope'"),
        ("app.sub:f", "no module 'app.sub'"),
        ("bad:f", "bad.py, line 1: .*not Python"),
        ("bad.py:f", "bad.py, line 1: .*not Python"),
        ("sys:exit", "no module with a file of its own"),
        ("nowhere/at/all.py:f", "there is no file"),
    ],
)
def test_what_is_not_there_is_named_with_the_nearest(target: str, words: str, tmp_path: Path) -> None:
    make(tmp_path, **{"app.py": "def summarize(i): ...\n", "bad.py": "def (:\n", "pkg/__init__.py": ""})
    with pytest.raises(ConfigurationError, match=words):
        content_of(spec(target), cwd=str(tmp_path))


@pytest.mark.parametrize(
    "code",
    [
        "def f(i): ...", "async def f(i): ...", "class f: ...", "f = print", "f: object = print", "from x import f",
        "from x import y as f", "import f", "import f.g", "from x import *", "def __getattr__(n): ...",
        "try:\n    from x import f\nexcept ImportError:\n    f = None", "if 1:\n    pass\nelse:\n    f = 1",
        "with open('x') as g:\n    f = 1", "(a, f) = 1, 2", "for _ in []:\n    f = 1",
    ],
)  # fmt: skip
def test_every_way_to_bind_a_name_counts(code: str, tmp_path: Path) -> None:
    make(tmp_path, **{"app.py": code + "\n"})
    assert find_handler("app:f", cwd=tmp_path).file == tmp_path / "app.py"


NAMES = st.sampled_from(["a.py", "b.py", "p/c.py", "p/q/d.py"])
TREES = st.dictionaries(NAMES, st.text(alphabet="xy\n", max_size=8), min_size=1)


@given(before=TREES, after=TREES)
def test_two_trees_have_one_fingerprint_exactly_when_they_are_the_same(
    before: dict[str, str], after: dict[str, str], tmp_path_factory: Any
) -> None:
    def digest(tree: dict[str, str]) -> str:
        return fingerprint(make(tmp_path_factory.mktemp("tree"), **tree))[0]

    assert (digest(before) == digest(after)) == (before == after)


def test_what_is_not_the_users_code_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path, **{"app.py": "x = 1\n", ".venv/lib/m.py": "a", "env/pyvenv.cfg": "", "env/m.py": "a"})
    make(tmp_path, **{"node_modules/m.py": "a", ".git/hook.py": "a", "__pycache__/m.py": "a", "data.txt": "a"})
    first = fingerprint(tmp_path)
    for name in (".venv/lib/m.py", "env/m.py", "node_modules/m.py", ".git/hook.py", "__pycache__/m.py", "data.txt"):
        (tmp_path / name).write_text("changed")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert fingerprint(tmp_path) == first
    (tmp_path / "app.py").write_text("x = 2\n")
    assert fingerprint(tmp_path) != first


def test_beyond_the_limits_it_says_what_is_not_watched(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(handler_source, "FILE_LIMIT", 3)
    make(tmp_path, **{f"m{n}.py": "" for n in range(5)})
    assert "only the first 3" in fingerprint(tmp_path)[1][0]
    monkeypatch.setattr(handler_source, "SIZE_LIMIT", 10)
    (tmp_path / "m0.py").write_text("x" * 11)
    digest, notes = fingerprint(tmp_path)
    assert any("too large" in note for note in notes)
    (tmp_path / "m0.py").write_text("x" * 12)
    assert fingerprint(tmp_path)[0] != digest


def test_a_command_is_known_by_its_folder_and_the_python_files_it_names(tmp_path: Path) -> None:
    make(tmp_path, **{"server.py": "x = 1\n"})
    command = spec(command="python server.py --port $PORT", interface="http")
    first = content_of(command, cwd=str(tmp_path))
    assert (first.origin, first.items["cwd"]) == (str(tmp_path), str(tmp_path))
    (tmp_path / "server.py").write_text("x = 2\n")
    assert content_of(command, cwd=str(tmp_path)).items["code"] != first.items["code"]
    assert set(content_of(spec(command="sleep 1"), cwd=str(tmp_path)).items) == {"cwd", "code"}


@given(
    where=st.text(alphabet="ab./_-é\u2028 ", max_size=12) | st.just("x" * 5000) | st.just("/" + "a/" * 3000),
    name=st.sampled_from(["f", "é", "__init__", "_"]),
    kind=st.sampled_from(["", ".py"]),
)
def test_whatever_a_handler_is_called_the_answer_is_its_content_or_our_error(
    where: str, name: str, kind: str, tmp_path: Path
) -> None:
    make(tmp_path, **{"a.py": "f = 1\n", "b/__init__.py": "from a import *\n", "b/a.py": "(\n"})
    loop = tmp_path / "ab.py"
    if not loop.is_symlink():
        loop.symlink_to(loop)
    try:
        found = content_of(spec(f"{where}{kind}:{name}"), cwd=str(tmp_path))
    except ConfigurationError:
        return
    assert set(found.items) == {"handler", "code"}


def test_a_command_may_name_anything(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        content_of(spec(command=["x" * 5000 + ".py"]), cwd=str(tmp_path))
