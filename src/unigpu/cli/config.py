"""``python -m unigpu config``: where each setting comes from, what is wrong with it, and the schema for editors."""

from __future__ import annotations

import argparse
import json
import sys


def add(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    explain = commands.add_parser(
        "explain",
        help="show each setting, and where it comes from",
        description="Show each setting and where it comes from, and check the declared deployments. No secret is "
        "shown. Ends with 2 where something is wrong.",
    )
    explain.add_argument("--config", help="the project's file (default: the nearest unigpu.toml or [tool.unigpu])")
    explain.add_argument("--profile", help="a profile of the files")
    explain.add_argument("--json", action="store_true", help="print one JSON object")
    explain.set_defaults(run=_explain)
    schema = commands.add_parser("schema", help="print the JSON schema of unigpu.toml")
    schema.set_defaults(run=_schema)


def _explain(args: argparse.Namespace) -> int:
    from .. import _registry
    from .._config import load
    from .._config._explain import problems, rows
    from ..errors import ConfigurationError
    from ..models.plan import table

    settings = load(config=args.config, profile=args.profile)
    keys: dict[str, str | None] = {}
    wrong: list[str] = []
    for name in dict.fromkeys((*_registry.installed(), settings.provider)):
        try:
            keys[name] = _registry.load(name).env_key
        except ConfigurationError as exc:
            wrong.append(str(exc))
    found = rows(settings, keys)
    wrong += problems(settings)
    if args.json:
        listed = [{"setting": one.setting, "value": one.value, "source": one.source} for one in found]
        print(json.dumps({"settings": listed, "problems": wrong}, ensure_ascii=False))
    else:
        print(table([("SETTING", "VALUE", "FROM"), *((one.setting, one.value, one.source) for one in found)]))
        for one in wrong:
            print(f"wrong: {one}", file=sys.stderr)
    return 2 if wrong else 0


def _schema(args: argparse.Namespace) -> int:
    from .._config._schema import schema

    print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0
