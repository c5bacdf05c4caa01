"""The JSON schema of ``unigpu.toml``, for editors: what may be written, which is more than what is kept of it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, Final, get_args

from ..models import DeploymentSpec
from ..models._spec_values import Risk
from ..models.identity import NAME_PATTERN, NAMESPACE_PATTERN

ID: Final = "https://raw.githubusercontent.com/unigpu/unigpu/main/docs/unigpu.schema.json"
_TEXT: Final[Mapping[str, Any]] = {"type": "string", "minLength": 1}
_TEXTS: Final[Mapping[str, Any]] = {"type": "array", "items": _TEXT, "minItems": 1}
_COUNT: Final[Mapping[str, Any]] = {"type": "integer", "minimum": 0, "maximum": 10_000}
_DURATION: Final[Mapping[str, Any]] = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|min|h|d)?\s*$"},
    ]
}
_FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "name": {"type": "string", "pattern": NAME_PATTERN},
    "interface": {"enum": ["function", "http"]},
    "kind": {"enum": ["serverless", "pod"]},
    "handler": _TEXT,
    "image": _TEXT,
    "command": {"anyOf": [_TEXT, _TEXTS]},
    "workers": {"anyOf": [_COUNT, {"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2}]},
    "idle_timeout": _DURATION,
    "scaling": {
        "type": "object",
        "properties": {
            "signal": {"enum": ["queue_delay", "requests"]},
            "target": {"type": "number", "exclusiveMinimum": 0},
        },
        "required": ["signal", "target"],
        "additionalProperties": False,
    },
    "execution_timeout": _DURATION,
    "concurrency": {"type": "integer", "minimum": 1, "maximum": 1000},
    "max_price": {"type": "number", "exclusiveMinimum": 0},
    "ttl": _DURATION,
    "regions": {"anyOf": [_TEXT, _TEXTS]},
    "gpu": {"anyOf": [_TEXT, _TEXTS]},
    "disk": {"type": "integer", "minimum": 1},
    "registry": {
        "type": "object",
        "properties": {"username": _TEXT, "password": _TEXT},
        "required": ["username", "password"],
        "additionalProperties": False,
    },
    "env": {"type": "object", "additionalProperties": {"type": "string"}},
    "secrets": {"type": "array", "items": _TEXT},
    "accept": {"type": "array", "items": {"enum": list(get_args(Risk))}},
    "volumes": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"name": _TEXT, "size_gb": {"type": "integer", "minimum": 1}, "path": _TEXT},
            "required": ["name", "size_gb"],
            "additionalProperties": False,
        },
    },
    "auth": {
        "anyOf": [
            {"const": "none"},
            {"type": "object", "properties": {"env": _TEXT}, "required": ["env"], "additionalProperties": False},
        ]
    },
    "port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "idempotent": {"type": "boolean"},
    "provider_options": {"type": "object", "additionalProperties": {"type": "object"}},
}


def schema() -> dict[str, Any]:
    """The schema of ``unigpu.toml`` and ``[tool.unigpu]``. The user's file has ``[api_keys]`` in addition."""
    told = _told()
    fields = {name: {"description": told[name], **rule} for name, rule in _FIELDS.items()}
    fields["on_unsupported"] = {
        "description": "What becomes of a demand that the platform cannot meet.",
        "enum": ["raise", "adapt"],
    }
    options = {"type": "object", "additionalProperties": {"type": "object"}}
    provider = {"description": "The default provider.", **_TEXT}
    namespace = {
        "description": "Names are unique in it; committed, so that everybody means the same deployments.",
        "type": "string",
        "pattern": NAMESPACE_PATTERN,
    }
    spec: dict[str, Any] = {"$ref": "#/$defs/spec"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": "unigpu.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "provider": provider,
            "namespace": namespace,
            "defaults": {"description": "Spec fields that hold for every deployment.", **spec},
            "deployments": {
                "description": 'Declared deployments: client.deploy("NAME").',
                "type": "object",
                "additionalProperties": {"$ref": "#/$defs/deployment"},
            },
            "driver_options": {"description": "A provider's own settings, keyed by provider.", **options},
            "profiles": {
                "description": "Other settings under a name: profile= or UNIGPU_PROFILE.",
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "provider": provider, "namespace": namespace, "defaults": spec, "driver_options": options
                    },
                },
            },
        },
        "$defs": {
            "spec": {"type": "object", "additionalProperties": False, "properties": fields},
            "deployment": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    **fields,
                    "on": {
                        "description": "What differs on one provider.",
                        "type": "object",
                        "additionalProperties": spec,
                    },
                },
            },
        },
    }  # fmt: skip


def _told() -> dict[str, str]:
    """Field → what `DeploymentSpec`'s own manual says of it, as plain text."""
    lines = (inspect.getdoc(DeploymentSpec) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", lines, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text).replace("`", "") for name, text in found}
