"""``unigpu config``: where each setting comes from, what is wrong with it, and the schema for editors."""

from __future__ import annotations

import json
import sys

import click

from . import options


@click.group()
def command() -> None:
    """Show where each setting comes from, and the schema of unigpu.toml."""


@command.command()
@click.option(
    "--config", metavar="FILE", help="The project's file (default: the nearest unigpu.toml or [tool.unigpu])."
)
@click.option("--profile", metavar="NAME", help="A profile of the files.")
@options.JSON
def explain(config: str | None, profile: str | None, *, as_json: bool) -> int:
    """Show each setting and where it comes from, and check the declared deployments.

    No secret is shown. The exit code is 2 where something is wrong.
    """
    from .. import _registry
    from .._config import load
    from .._config.explain import problems, rows
    from ..errors import ConfigurationError
    from .tables import show

    settings = load(config=config, profile=profile)
    keys: dict[str, str | None] = {}
    wrong: list[str] = []
    for name in dict.fromkeys((*_registry.installed(), settings.provider)):
        try:
            keys[name] = _registry.load(name).env_key
        except ConfigurationError as exc:
            wrong.append(str(exc))
    found = rows(settings, keys)
    wrong += problems(settings)
    if as_json:
        listed = [{"setting": one.setting, "value": one.value, "source": one.source} for one in found]
        print(json.dumps({"settings": listed, "problems": wrong}, ensure_ascii=False))
    else:
        show([("SETTING", "VALUE", "FROM"), *((one.setting, one.value, one.source) for one in found)])
        for one in wrong:
            print(f"wrong: {one}", file=sys.stderr)
    return 2 if wrong else 0


@command.command()
def schema() -> int:
    """Print the JSON schema of unigpu.toml."""
    from .._config.schema import schema

    print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0
