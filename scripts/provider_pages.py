"""Writes the comparison of the platforms into ``docs/providers/``, from their facts alone.

    python scripts/provider_pages.py            # writes
    python scripts/provider_pages.py --check    # writes nothing; 1 where a page is not what the facts say

Each cell is a link to where it is written, with its status and the day on which it was read there.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unigpu import Capabilities, compare
from unigpu._client.compare import facts_of
from unigpu.elasticity.capabilities import FLAGS
from unigpu.elasticity.fact import Fact
from unigpu.elasticity.questions import IN_SHORT, QUESTIONS, in_words
from unigpu.models import Interface, Kind

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "providers"
PROVIDERS = ("runpod", "vast", "yotta", "local")
TITLES = {"runpod": "RunPod", "vast": "Vast.ai", "yotta": "Yotta Labs", "local": "local"}
STATUSES = ("documented", "observed", "accepted", "contradicted")
MADE = "<!-- Made by scripts/provider_pages.py from src/unigpu/elasticity/facts/: change the facts, not this page. -->"
MARKS = {
    "documented": "",
    "observed": " (observed)",
    "accepted": " (accepted, effect unproven)",
    "contradicted": " (**contradicted**)",
}
# What each kind of deployment is called there.
PRODUCTS = {
    "runpod": {"function/serverless": "queue", "http/serverless": "load balancer", "function/pod": "handler's pod"},
    "vast": {"function/serverless": "endpoint", "http/serverless": "endpoint of an image", "http/pod": "instance"},
    "yotta": {"function/serverless": "QUEUE", "http/serverless": "ALB", "function/pod": "handler's pod"},
    "local": {"function/serverless": "function", "http/serverless": "service", "function/pod": "function kept running"},
}  # fmt: skip


def words(flag: str) -> str:
    return flag.replace("_", " ")


def safe(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def shown(name: str, fact: Fact[Any]) -> str:
    """The value as a reader takes it in: plain words, days for many seconds, and no underscore."""
    value: object = fact.value
    if isinstance(value, int | float) and not isinstance(value, bool):
        for unit, size, name in (("s", 86400, "days"), ("s", 3600, "h"), ("bytes", 10**6, "MB")):
            if fact.unit == unit and value >= 2 * size:
                return f"{value / size:g} {name}"
    return safe(re.sub(r"\b[a-z]+(_[a-z]+)+\b", lambda found: words(found[0]), in_words(name, fact)))


def link(name: str, fact: Fact[Any]) -> str:
    return f'[{shown(name, fact)}]({fact.source} "{fact.status}, {fact.retrieved}")'


def cell(name: str, fact: Fact[Any]) -> str:
    """With its date only where it is not the one that the page names."""
    late = "" if fact.retrieved == READ else f", {fact.retrieved}"
    return f"{link(name, fact)}{MARKS[fact.status]}{late}"


def noted(flag: str, caps: Capabilities) -> str:
    """A cell with the way to its note."""
    fact = caps.fact(flag)
    return cell(flag, fact) + (f" [note]({caps.provider}-facts.md#{flag})" if fact.note else "")


def row(flag: str, found: Iterable[Capabilities]) -> list[str]:
    return [words(flag), *(noted(flag, one) for one in found)]


def told(name: str, fact: Fact[Any]) -> str:
    """For a list: everything."""
    status = "**contradicted**" if fact.status == "contradicted" else fact.status
    return f"{link(name, fact)} ({status}, {fact.retrieved})" + (f": {safe(fact.note)}." if fact.note else "")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *(f"| {' | '.join(row)} |" for row in rows), ""]


def every(provider: str) -> list[tuple[str, Fact[Any]]]:
    """Each fact of a provider once, however many kinds of deployments it holds for."""
    shapes, further, _ = facts_of(provider)
    found = [(flag, fact) for caps in shapes for flag, fact in caps.facts()] + list(further.items())
    return list({(name, fact.model_dump_json()): (name, fact) for name, fact in found}.values())


READ = Counter(fact.retrieved for provider in PROVIDERS for _, fact in every(provider)).most_common(1)[0][0]
"""The day on which most of it was read."""


def comparison(interface: Interface, kind: Kind, *, like: tuple[Interface, Kind] | None = None) -> list[str]:
    """The four questions; *like*: only what is otherwise than for that kind of deployment."""
    found = compare(*PROVIDERS, interface=interface, kind=kind)
    known = {one.provider: one for one in compare(*PROVIDERS, interface=like[0], kind=like[1])} if like else {}
    out: list[str] = []
    for question, flags in QUESTIONS.items():
        kept = [
            flag
            for flag in flags
            if not known or any(noted(flag, one) != noted(flag, known[one.provider]) for one in found)
        ]
        if kept:
            head = [f"**{question}**", *(TITLES[one.provider] for one in found)]
            out += table(head, (row(flag, found) for flag in kept))
    return out + [f"- {why}" for why in found.absent.values()] + ([""] if found.absent else [])


def one_look() -> list[str]:
    """A line for each platform and each kind of deployment there; those of which all is the same share one."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for provider in PROVIDERS:
        for caps in facts_of(provider)[0]:
            answers = (
                "; ".join(f"{text} {noted(flag, caps)}".strip() for text, flag in asked if known(flag, caps))
                for asked in IN_SHORT
            )
            lines.setdefault((TITLES[provider], *answers), []).append(product(provider, caps))
    head = ["", "Who adds workers?", "Cold start", "Billed", "Whose machines?"]
    rows = ([f"**{title}** {', '.join(of)}", *answers] for (title, *answers), of in lines.items())
    return ["## In one look", "", *table(head, rows)]


def known(flag: str, caps: Capabilities) -> bool:
    """Whether there is something to say: not of the signals where nothing adds workers."""
    return caps.fact(flag).value != ()


def said(caps: Capabilities, *flags: tuple[str, str]) -> str:
    """What decides, each with its cell: ``("cold start", "cold_start")``."""
    return ", ".join(f"{text} {noted(flag, caps)}" for text, flag in flags) + "."


def bursty(caps: Capabilities) -> str:
    """Whether calls that come in bursts, with nothing between them, are what it is for."""
    held = caps.queue_durability.value in ("memory", "durable")
    if not (caps.wakes_on_request.value and caps.scale_to_zero.value == "automatic"):
        verdict = "**no**, or with workers that you start, stop and pay for by hand"
    elif caps.cold_start.value == "unknown":
        verdict = "**perhaps**: it scales by itself, and nobody says how fast"
    else:
        verdict = "**yes**" if held else "**yes**, while the caller waits: nothing keeps a call whose caller left"
    return f"{verdict}. " + said(
        caps,
        ("A call wakes it:", "wakes_on_request"),
        ("it goes to zero:", "scale_to_zero"),
        ("cold start:", "cold_start"),
        ("waiting calls are kept:", "queue_durability"),
    )


def sustained(caps: Capabilities) -> str:
    """Whether it is for hours of work on one machine."""
    if caps.preemption.value != "none":
        verdict = "**with care**: that it is left alone is not promised; keep checkpoints elsewhere"
    elif caps.volumes.value == "shared":
        verdict = "**yes**"
    else:
        verdict = "**yes**, with checkpoints kept elsewhere"
    return f"{verdict}. " + said(
        caps,
        ("Taken away:", "preemption"),
        ("a disk that outlives it:", "volumes"),
        ("longest run:", "max_execution_timeout"),
    )


USES: tuple[tuple[str, str, Interface, Kind, Callable[[Capabilities], str], tuple[str, ...]], ...] = (
    (
        "Bursty inference",
        "Calls come in bursts, with nothing between them: somebody else should add workers when they come, take them "
        "away after, and charge nothing at zero.",
        "function",
        "serverless",
        bursty,
        ("bills_loading", "bills_idle", "bills_stopped", "bandwidth_billing", "max_request_time", "result_retention"),
    ),
    (
        "Sustained training",
        "One job for hours or days: nobody should take the machine away, and its disk should last. That is a pod, on "
        "all of them.",
        "http",
        "pod",
        sustained,
        ("billing_unit", "bills_stopped", "bandwidth_billing", "host_trust", "public_endpoint", "ttl_enforced_by"),
    ),
)


def which() -> list[str]:
    out = ["## Which one for what", ""]
    for title, why, interface, kind, verdict, flags in USES:
        found = compare(*PROVIDERS, interface=interface, kind=kind)
        out += [f"### {title}", "", why, "", *(f"- **{TITLES[one.provider]}**: {verdict(one)}" for one in found), ""]
        head = ["What it costs, and what else to know", *(TITLES[one.provider] for one in found)]
        out += table(head, (row(flag, found) for flag in flags))
    functions = compare(*PROVIDERS, interface="function", kind="serverless")
    ends = ", ".join(f"{TITLES[one.provider]} {noted('max_execution_timeout', one)}" for one in functions)
    return [*out, f"Should you train in a function: the longest that one may run is, on {ends}.", ""]


def doubtful(provider: str) -> list[str]:
    """Where sources disagree, each once, with a link to its place on the platform's page."""
    _, further, _ = facts_of(provider)
    out: dict[str, None] = {}
    for name, fact in every(provider):
        if fact.status == "contradicted":
            title = safe(further[name].title) if name in further else words(name)
            out.setdefault(f"- [{title}]({provider}-facts.md#{name}): {link(name, fact)}; {safe(fact.note or '')}.")
    return list(out)


def counts() -> list[str]:
    columns = (*STATUSES, "of these unknown", "all")
    rows: list[list[str]] = []
    sums = Counter[str]()
    for provider in PROVIDERS:
        facts = [fact for _, fact in every(provider)]
        by = Counter[str](fact.status for fact in facts)
        by.update({"of these unknown": sum(fact.value == "unknown" for fact in facts), "all": len(facts)})
        sums.update(by)
        rows.append([TITLES[provider], *(str(by[name]) for name in columns)])
    return table(["", *columns], [*rows, ["all", *(str(sums[name]) for name in columns)]])


def index() -> str:
    out = [
        MADE, "",
        "# Which platform?", "",
        'All of them say "serverless GPU", and mean different things. Four questions tell them apart: who adds',
        "workers, how long a cold start is, what the smallest thing billed is, and whose machines they are. Every cell",
        f"is a link to where it is written, read there on {READ} unless another day stands beside it. What is not",
        "marked is documented there; *observed* was seen by somebody; *accepted* is what the API takes, and nobody has",
        "shown that it acts; *contradicted* means that sources disagree, and the [list below](#words-and-api) says",
        "how. A *note* says what the value leaves out.", "",
        "The same in a terminal: `unigpu facts`, with `--json` for programs, or `unigpu.compare()`.", "",
        *one_look(),
        *which(),
        '## What "serverless" means there', "",
    ]  # fmt: skip
    for provider in PROVIDERS:
        reading = facts_of(provider)[2]
        assert reading, f"{provider}: the facts have no reading"
        out += [f"**[{TITLES[provider]}]({provider}-facts.md)**: {safe(reading)}", ""]
    out += ["## Functions: JSON in, JSON out, through a handler", "", *comparison("function", "serverless")]
    out += ["## HTTP services: your own server in the container", "", "Only what is otherwise than for functions.", ""]
    out += comparison("http", "serverless", like=("function", "serverless"))
    out += ["## Pods: one machine kept for sustained work", "", "Your own server on it.", *functions_as_pods(), ""]
    out += comparison("http", "pod")
    out += ["## Where a platform's words and its API differ { #words-and-api }", ""]
    for provider in PROVIDERS:
        lines = doubtful(provider)
        if lines:
            out += [f"### {TITLES[provider]}", "", *lines, ""]
    out += ["## How many facts, and how sure", "", "One that holds for several kinds of deployments counts once.", ""]
    return "\n".join(out + counts())


def functions_as_pods() -> list[str]:
    found = compare(*PROVIDERS, interface="function", kind="pod")
    yes = ", ".join(TITLES[one.provider] for one in found)
    no = ", ".join(TITLES[name] for name in found.absent)
    return [f"Functions run as pods on: {yes}" + (f"; not on: {no}." if no else ".")]


def page(provider: str) -> str:
    shapes, further, reading = facts_of(provider)
    out = [MADE, "", f"# {TITLES[provider]}: every fact", "", safe(reading or ""), ""]
    if (FOLDER / f"{provider}.md").exists():
        out += [f"How to use it from unigpu: [{TITLES[provider]}]({provider}.md).", ""]
    kinds = ", ".join(f"*{product(provider, caps)}* is `{caps.interface}/{caps.kind}`" for caps in shapes)
    out += [f"Kinds of deployments: {kinds}. All platforms side by side: [Which platform?](index.md)", ""]
    for question, flags in (*QUESTIONS.items(), ("Everything else", tuple(rest()))):
        out += [f"## {question}", ""]
        for flag in flags:
            out += fact_lines(provider, flag, shapes)
    if further:
        out += ["## And", ""]
        for name, fact in further.items():
            about = "" if fact.about == "*" else f"`{fact.about}`: "
            out += [f"### {safe(fact.title)} {{ #{name} }}", "", f"- {about}{told(name, fact)}", ""]
    return "\n".join(out)


def product(provider: str, caps: Capabilities) -> str:
    return PRODUCTS[provider].get(f"{caps.interface}/{caps.kind}", "pod")


def rest() -> Iterator[str]:
    asked = {flag for flags in QUESTIONS.values() for flag in flags}
    return (flag for flag in FLAGS if flag not in asked)


def fact_lines(provider: str, flag: str, shapes: Sequence[Capabilities]) -> list[str]:
    """One flag: once where all kinds of deployments agree, else by kind."""
    by: dict[str, list[str]] = {}
    for caps in shapes:
        by.setdefault(told(flag, caps.fact(flag)), []).append(product(provider, caps))
    out = [f"### {words(flag)} {{ #{flag} }}", "", f"{sentence(FLAGS[flag])}.", ""]
    for text, where in by.items():
        out.append(f"- {text}" if len(by) == 1 else f"- *{', '.join(where)}*: {text}")
    return [*out, ""]


def sentence(text: str) -> str:
    """With a capital, unless it begins with a name."""
    return text[0].upper() + text[1:] if re.match(r"[a-z]+[ ,]", text) else text


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
    made = pages()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path], encoding="utf-8")
        print(f"{'stale' if check else 'written'}: {path.name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
