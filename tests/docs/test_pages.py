"""Every code block of every page, run or checked as `docs_pages` says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import docs_pages
import jsonschema
import pytest
from docs_pages import ROOT, Block, Page, PageError, commands

import unigpu
import unigpu.errors
import unigpu.testing

RUNNER = ROOT / "tests" / "support" / "docs_runner.py"
PAGES = docs_pages.pages()
MOST_NOT_RUN = 6  # of all pages together: each is a promise that nobody keeps but the author
SCHEMA = json.loads((ROOT / "docs" / "unigpu.schema.json").read_text("utf-8"))
each_page = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


def steps_of(page: Page) -> list[dict[str, Any]]:
    """What the runner does, in order."""
    steps: list[dict[str, Any]] = []
    for block in page.blocks:
        if block.kind == "prints":
            assert steps, f"{page.name}:{block.line}: nothing ran before that could print this"
            steps[-1]["prints"] = block.text
        elif block.kind == "run":
            steps.append({"kind": "run", "text": block.text, "line": block.line})
        elif block.kind == "command":
            found = [one for one in commands(block) if one.kind == "command"]
            steps += [
                {"kind": "command", "text": one.words, "line": one.line, "prints": one.output or None} for one in found
            ]
    return [{"prints": None, "page": page.name, **step} for step in steps]


def write_files(page: Page, into: Path) -> None:
    """The page's files; ``app.py`` of the first page, unless it has its own; its tests."""
    first = next(p for p in PAGES if p.name == "docs/index.md")
    parts: dict[str, str] = {b.file: b.text for b in first.blocks if b.file}
    own = [block for block in page.blocks if block.file]
    parts = {name: text for name, text in parts.items() if name not in {block.file for block in own}}
    for block in own:
        assert block.file
        parts[block.file] = parts.get(block.file, "") + block.text
    parts |= {f"test_line_{b.line}.py": b.text for b in page.blocks if b.kind == "tests"}
    for name, text in parts.items():
        path = into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def has_tests(page: Page) -> bool:
    return any(b.kind == "tests" or (b.file or "").startswith("test_") for b in page.blocks)


@pytest.mark.processes
@pytest.mark.parametrize("page", live := [p for p in PAGES if steps_of(p) or has_tests(p)], ids=[p.name for p in live])
def test_its_blocks_run_as_they_stand_there(page: Page, tmp_path: Path) -> None:
    steps = steps_of(page)
    here = tmp_path / "page"
    here.mkdir()
    write_files(page, here)
    plan = tmp_path / "steps.json"
    plan.write_text(json.dumps(steps), "utf-8")
    lines = [[sys.executable, "-W", "error", str(RUNNER), str(plan)]] if steps else []
    if has_tests(page):
        lines.append([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "."])
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    for line in lines:
        ran = subprocess.run(line, cwd=here, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"


@each_page
def test_what_is_not_run_is_at_least_well_formed(page: Page) -> None:
    modules = [block for block in page.blocks if block.file and block.language == "python"]
    for name in {block.file for block in modules}:  # one may be told in several parts
        compile("".join(block.text for block in modules if block.file == name), f"{page.name}: {name}", "exec")
    for block in page.blocks:
        where = f"{page.name}:{block.line}"
        if block.language == "python" and not block.file:
            compile(block.text, where, "exec")
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            check_toml(block, where)
        elif block.language == "console":
            for one in commands(block):
                check_mentioned(one.words.partition(" #")[0], where)


def check_toml(block: Block, where: str) -> None:
    parsed = tomllib.loads(block.text)
    config = parsed.get("tool", {}).get("unigpu") if "tool" in parsed else parsed
    if config is not None and set(config) <= set(SCHEMA["properties"]):
        errors = [e.message for e in jsonschema.Draft202012Validator(SCHEMA).iter_errors(config)]
        assert not errors, f"{where}: {errors}"


def check_mentioned(words: str, where: str) -> None:
    if words.startswith("make "):
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert words.split()[1] in targets, f"{where}: there is no `{words}`"
    if words.startswith("pip install") and "unigpu[" in words:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        extras = re.findall(r"unigpu\[([^\]]+)\]", words)[0].split(",")
        assert set(extras) <= set(project["optional-dependencies"]), f"{where}: an extra that there is not"


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    reasons = [reason for page in PAGES for reason in page.reasons()]
    assert len(reasons) <= MOST_NOT_RUN, reasons


def test_what_the_rules_do_not_cover_is_refused() -> None:
    with pytest.raises(PageError, match="never closed"):
        list(docs_pages.blocks("```python\nx = 1\n"))
    with pytest.raises(PageError, match="behind the language"):
        list(docs_pages.blocks("```python app.py\nx = 1\n```\n"))
    with pytest.raises(PageError, match="as `console`"):
        list(docs_pages.blocks("```bash\nls\n```\n"))
    (unknown,) = docs_pages.blocks("```console\n$ rm -rf /\n```\n")
    with pytest.raises(PageError, match="how is"):
        _ = [one.kind for one in commands(unknown)]
    (shown,) = docs_pages.blocks("```console\n$ docker build .  # not run: no Docker here\n```\n")
    assert [one.kind for one in commands(shown)] == ["not run"]


def run_steps(tmp_path: Path, *texts: str, prints: str | None = None) -> subprocess.CompletedProcess[str]:
    steps = [{"kind": "run", "page": "docs/x.md", "line": 7, "prints": prints, "text": text} for text in texts]
    plan = tmp_path / "steps.json"
    plan.write_text(json.dumps(steps), "utf-8")
    line = [sys.executable, str(RUNNER), str(plan)]
    return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)


def test_a_block_that_fails_or_prints_something_else_is_told_with_its_page_and_line(tmp_path: Path) -> None:
    broken = run_steps(tmp_path, "x = 1\n", "assert x == 1\nx.nothing\n")
    assert broken.returncode != 0
    assert 'File "docs/x.md", line 8' in broken.stderr
    other = run_steps(tmp_path, "print(2)\n", prints="1\n")
    assert other.returncode != 0
    assert "docs/x.md:7 prints something else" in other.stderr
    assert run_steps(tmp_path, "print(1)\n", prints="1\n").returncode == 0


def test_no_page_leaves_this_machine(tmp_path: Path) -> None:
    away = run_steps(tmp_path, "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=1)\n")
    assert away.returncode != 0
    assert "a page tried to connect to 192.0.2.1" in away.stderr


def test_output_is_compared_and_an_ellipsis_stands_for_anything() -> None:
    import docs_runner

    assert docs_runner.like("a … c\n").fullmatch("a b c\n")
    assert docs_runner.like("a\n…\nd\n").fullmatch("a\nb\nc\nd\n")
    assert not docs_runner.like("a … c\n").fullmatch("a b d\n")


def test_links_between_pages_stay_inside_the_docs() -> None:
    """A link out of ``docs/`` works in the repository, and is dead on the site."""
    for page in PAGES:
        inside = page.path.parent if page.name == "README.md" else ROOT / "docs"
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.path.read_text("utf-8")):
            path = (page.path.parent / target).resolve()
            assert path.exists(), f"{page.name}: {target} is not there"
            assert path.is_relative_to(inside), f"{page.name}: {target} is not on the site: give its address"


def test_every_page_is_in_the_navigation_once() -> None:
    listed = re.findall(r"([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    pages = [page.name.removeprefix("docs/") for page in PAGES if page.name != "README.md"]
    assert sorted(listed) == sorted(pages)


def test_every_public_name_is_in_the_reference() -> None:
    """The asynchronous twins are told by one sentence: a test holds them to the others."""
    told = "\n".join(page.path.read_text("utf-8") for page in PAGES if "/reference/" in page.name)
    shown = set(re.findall(r"^::: unigpu\.(\w+)$", told, re.MULTILINE)) | set(unigpu.errors.__all__)
    names = {name for name in unigpu.__all__ if not name.startswith(("Async", "__"))}
    assert names - shown == set()
    assert set(unigpu.testing.__all__) - set(re.findall(r"^::: unigpu\.testing\.(\w+)$", told, re.MULTILINE)) == set()
