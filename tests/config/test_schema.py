"""The published schema is the one that the code gives, and knows every field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unigpu._config._schema import schema
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
