"""Options and arguments that several verbs share."""

from __future__ import annotations

from typing import Final

import click

DEPLOYMENT: Final = click.argument("deployment")
PROVIDERS: Final = click.option(
    "--provider", "providers", multiple=True, metavar="NAME", help="Only this provider. Repeat it for several."
)
REPLACE: Final = click.option("--replace", is_flag=True, help="Replace a deployment that exists and differs.")
ADAPT: Final = click.option(
    "--adapt", is_flag=True, help="Use the nearest setting where the platform does not support yours."
)
JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
