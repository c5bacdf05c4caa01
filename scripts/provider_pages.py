"""Writes the comparison of the platforms into ``docs/providers/``, from their facts alone.

    python scripts/provider_pages.py            # writes
    python scripts/provider_pages.py --check    # writes nothing; 1 where a page is not what the facts say

Each cell is a link to where it is written, with its status and the day on which it was read there.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unigpu import Capabilities, compare
from unigpu._client._compare import facts_of
from unigpu.elasticity.capabilities import FLAGS
from unigpu.elasticity.fact import Fact
from unigpu.elasticity.questions import QUESTIONS
from unigpu.models import Interface, Kind

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "providers"
PROVIDERS = ("runpod", "vast", "yotta", "local")
TITLES = {"runpod": "RunPod", "vast": "Vast.ai", "yotta": "Yotta Labs", "local": "local"}
SHAPES: tuple[tuple[Interface, Kind, str], ...] = (
    ("function", "serverless", "Functions: JSON in, JSON out, through a handler"),
    ("http", "serverless", "HTTP services: your own server in the container"),
    ("function", "pod", "Pods: one machine kept for sustained work"),
)
MADE = "<!-- Made by scripts/provider_pages.py from src/unigpu/elasticity/facts/: change the facts, not this page. -->"
MARKS = {
    "documented": "",
    "observed": " (observed)",
    "accepted": " (accepted, effect unproven)",
    "contradicted": " (**contradicted**)",
}


def words(flag: str) -> str:
    return flag.replace("_", " ")


def safe(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def cell(fact: Fact[Any]) -> str:
    return f"[{safe(fact.shown)}]({fact.source}){MARKS[fact.status]}"


def table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *(f"| {' | '.join(row)} |" for row in rows), ""]


def comparison(interface: Interface, kind: Kind) -> list[str]:
    found = compare(*PROVIDERS, interface=interface, kind=kind)
    out: list[str] = []
    for question, flags in QUESTIONS.items():
        head = [f"**{question}**", *(TITLES[one.provider] for one in found)]
        out += table(head, [[words(flag), *(cell(one.fact(flag)) for one in found)] for flag in flags])
    return out + [f"- {why}" for why in found.absent.values()] + ([""] if found.absent else [])


def doubtful(provider: str) -> list[str]:
    """Where sources disagree, each once."""
    shapes, further, _ = facts_of(provider)
    seen: dict[str, None] = {}
    for caps in shapes:
        for flag, fact in caps.facts():
            if fact.status == "contradicted":
                line = f"- **{words(flag)}**: {cell(fact)} {safe(fact.note or '')} ({fact.retrieved})"
                seen.setdefault(line)
    for fact in further.values():
        if fact.status == "contradicted":
            seen.setdefault(f"- **{safe(fact.title)}**: {cell(fact)} {safe(fact.note or '')} ({fact.retrieved})")
    return list(seen)


def counts() -> list[str]:
    statuses = ("documented", "observed", "accepted", "contradicted")
    rows = []
    for provider in PROVIDERS:
        shapes, further, _ = facts_of(provider)
        facts = [fact for caps in shapes for _, fact in caps.facts()] + list(further.values())
        by = Counter(fact.status for fact in facts)
        unknown = sum(fact.value == "unknown" for fact in facts)
        rows.append([TITLES[provider], *(str(by[status]) for status in statuses), str(unknown), str(len(facts))])
    return table(["", *statuses, "of these unknown", "all"], rows)


def index() -> str:
    out = [
        MADE, "",
        "# Which platform?", "",
        'All of them say "serverless GPU", and mean different things. Four questions tell them apart. Every cell is',
        "a link to where it is written; what is not marked is documented there. *Accepted* means that the API takes it",
        "and nobody has shown that it acts; *contradicted* means that sources disagree, and the platform's page says",
        "how.", "",
        "The same in a terminal: `python -m unigpu facts`, with `--json` for programs, or `unigpu.compare()`.", "",
        "## What it means there", "",
    ]  # fmt: skip
    for provider in PROVIDERS:
        reading = facts_of(provider)[2]
        assert reading, f"{provider}: the facts have no reading"
        out += [f"**[{TITLES[provider]}]({provider}-facts.md)**: {reading}", ""]
    for interface, kind, title in SHAPES:
        out += [f"## {title}", "", *comparison(interface, kind)]
    out += ["## Where a platform's words and its API differ", ""]
    for provider in PROVIDERS:
        lines = doubtful(provider)
        if lines:
            out += [f"{TITLES[provider]}:", "", *lines, ""]
    out += ["## How many facts, and how sure", "", *counts()]
    return "\n".join(out)


def page(provider: str) -> str:
    shapes, further, reading = facts_of(provider)
    out = [MADE, "", f"# {TITLES[provider]}: every fact", "", reading or "", ""]
    out += [f"How to use it from unigpu: [{TITLES[provider]}]({provider}.md).", ""]
    for question, flags in (*QUESTIONS.items(), ("Everything else", tuple(rest()))):
        out += [f"## {question}", ""]
        for flag in flags:
            out += fact_lines(flag, shapes)
    if further:
        out += ["## And", ""]
        for name, fact in further.items():
            about = "" if fact.about == "*" else f" ({fact.about})"
            out += [f"**{safe(fact.title)}**{about} {{ #{name} }}", "", f": {told(fact)}", ""]
    return "\n".join(out)


def rest() -> Iterator[str]:
    asked = {flag for flags in QUESTIONS.values() for flag in flags}
    return (flag for flag in FLAGS if flag not in asked)


def fact_lines(flag: str, shapes: Sequence[Capabilities]) -> list[str]:
    """One flag: once where all kinds of deployments agree, else by kind."""
    by: dict[str, list[str]] = {}
    for caps in shapes:
        by.setdefault(told(caps.fact(flag)), []).append(f"{caps.interface}/{caps.kind}")
    out = [f"**{words(flag)}**: {FLAGS[flag]}", ""]
    for text, where in by.items():
        out.append(f": {text}" if len(by) == 1 else f": {', '.join(where)}: {text}")
        out.append("")
    return out


def told(fact: Fact[Any]) -> str:
    note = f" {safe(fact.note)}" if fact.note else ""
    return f"{cell(fact)}, {fact.retrieved}.{note}"


def pages() -> dict[Path, str]:
    made = {FOLDER / "index.md": index()}
    made.update({FOLDER / f"{provider}-facts.md": page(provider) for provider in PROVIDERS})
    return {path: text.rstrip() + "\n" for path, text in made.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where a page is not what the facts say"
    )
    check = parser.parse_args().check
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pages()[path], encoding="utf-8")
        print(f"{'stale' if check else 'written'}: {path.name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
