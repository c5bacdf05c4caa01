"""The published schema is the one that the code gives, and knows every field."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from unigpu import Client, ConfigurationError
from unigpu._config.schema import schema
from unigpu.models import DeploymentSpec

DOCS = Path(__file__).parents[2] / "docs"


def test_the_published_schema_is_current() -> None:
    """If not: ``python -m unigpu config schema > docs/unigpu.schema.json``."""
    assert json.loads((DOCS / "unigpu.schema.json").read_text("utf-8")) == schema()


def test_it_has_every_field_with_a_description_and_no_other() -> None:
    fields: dict[str, Any] = schema()["$defs"]["spec"]["properties"]
    assert set(fields) == {*DeploymentSpec.model_fields, "on_unsupported"}
    assert all(one["description"].endswith(".") for one in fields.values())


def test_its_choices_are_the_specs() -> None:
    fields: dict[str, Any] = schema()["$defs"]["spec"]["properties"]
    for name in ("interface", "kind"):
        annotation: Any = DeploymentSpec.model_fields[name].annotation
        assert fields[name]["enum"] == list(annotation.__args__)


CHAT = '[deployments.chat]\nhandler = "app:f"\n'
GOOD = {
    "nothing": "",
    "the top": 'provider = "local"\nnamespace = "team.a_b-c"\n',
    "defaults": '[defaults]\nttl = "8h"\non_unsupported = "adapt"\nmax_price = 1.2\n',
    "a deployment": CHAT + 'gpu = ["RTX 4090", "L40S"]\nworkers = [0, 3]\nidle_timeout = 30\nregions = ["EU"]\n',
    "workers as a number": CHAT + "workers = 2\n",
    "one gpu": CHAT + 'gpu = "24GB"\nmax_price = 1\n',
    "on a provider": CHAT + "[deployments.chat.on.local]\nworkers = [0, 1]\n",
    "http": '[deployments.chat]\ninterface = "http"\ncommand = ["python", "server.py"]\nport = 8000\n',
    "env and secrets": CHAT + 'secrets = ["HF_TOKEN"]\n[deployments.chat.env]\nMODE = "fast"\n',
    "volumes": CHAT + '[[deployments.chat.volumes]]\nname = "models"\nsize_gb = 20\n',
    "scaling": CHAT + 'scaling = { signal = "queue_delay", target = 4 }\n',
    "options of any provider": "[driver_options.local]\nidle_exit = 60\n[driver_options.other]\nx = [1]\n",
    "a profile": '[profiles.ci]\nnamespace = "ci"\n[profiles.ci.defaults]\nttl = 60\n',
}
BAD = {
    "an unknown key": 'namespce = "team"\n',
    "an unknown field": CHAT + "worker = 1\n",
    "an unknown field on a provider": CHAT + "[deployments.chat.on.local]\nworker = 1\n",
    "an unknown default": '[defaults]\ntttl = "8h"\n',
    "an unknown key of a profile": '[profiles.ci]\nname = "x"\n',
    "a key": '[api_keys]\nlocal = "x"\n',
    "a table that is none": "defaults = 3\n",
    "a provider that is no text": "provider = 3\n",
    "an empty provider": 'provider = ""\n',
    "a namespace that is none": 'namespace = "Team A"\n',
    "three limits": CHAT + "workers = [0, 1, 2]\n",
    "negative workers": CHAT + "workers = [-1, 2]\n",
    "an interface that there is not": CHAT + 'interface = "grpc"\n',
    "a number as text": CHAT + 'concurrency = "four"\n',
    "a ttl that is none": CHAT + 'ttl = "8 hours"\n',
    "no choice": "[defaults]\non_unsupported = 'perhaps'\n" + CHAT,
    "an answer that is none": CHAT + 'idempotent = "perhaps"\n',
    "options that are no table": "[driver_options]\nlocal = 3\n",
}


def by_schema(text: str) -> list[str]:
    found = jsonschema.Draft202012Validator(schema()).iter_errors(tomllib.loads(text))
    return [error.message for error in found]


def by_us(text: str, folder: Path) -> str | None:
    file = folder / "unigpu.toml"
    file.write_text(text)
    try:
        with Client("local", config=file) as client:
            if "chat" in tomllib.loads(text).get("deployments", {}):
                client._context.gate.spec("chat", None, {})
    except ConfigurationError as exc:
        return str(exc)
    return None


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_what_we_take_the_schema_takes(text: str, tmp_path: Path) -> None:
    assert by_us(text, tmp_path) is None
    assert by_schema(text) == []


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_we_refuse_the_schema_refuses(text: str, tmp_path: Path) -> None:
    told = by_us(text, tmp_path) or refused_as_default(tmp_path)
    assert told
    assert by_schema(text)


def refused_as_default(folder: Path) -> str | None:
    """Where the file's own provider is what is wrong."""
    try:
        Client(config=folder / "unigpu.toml").close()
    except ConfigurationError as exc:
        return str(exc)
    return None


def test_the_schema_is_one_itself() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
