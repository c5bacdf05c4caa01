"""A platform's official OpenAPI file, to hold our requests and an emulator's replies to.

    from openapi import OpenAPI                      # pytest puts tests/support on the path

    spec = OpenAPI.load("runpod-v2.openapi.json")    # skips the test where the vendors' files are absent
    spec.check_request("POST", "https://api.runpod.io/v2/serverless", body={...})
    spec.check_reply("POST", "/v2/serverless", 201, {...})
    for example in spec.examples(): ...              # every documented example: method, path, status, value

What does not hold is an `AssertionError` that names the route, the place in the body, and the rule. *allow* takes the
deviations that are known: ``{"workers.max": "why, and its source"}``, by place; ``[]`` stands for any index.

Bodies are checked strictly by default: a property that the file does not name is a mistake of ours, even where the
file does not forbid it (most files forget ``additionalProperties: false``).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml
from openapi_schema_validator import OAS30Validator, OAS31Validator

_HERE = Path(__file__).resolve().parents[2]
FOLDERS = (Path(os.environ.get("UNIGPU_SPECS", "")), _HERE.parent / "shared" / "specs")


@dataclass(frozen=True)
class Example:
    """One documented example: of a request (``status`` is ``None``) or of a reply."""

    method: str
    path: str
    status: str | None
    name: str
    value: Any


class OpenAPI:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self._validator = OAS30Validator if str(document["openapi"]).startswith("3.0") else OAS31Validator
        self._routes = [(_pattern(path), path) for path in document["paths"]]
        # The literal route wins over the one with a parameter in its place.
        self._routes.sort(key=lambda route: route[1].count("{"))

    @classmethod
    def load(cls, name: str) -> OpenAPI:
        """The file of this name; skips the test where there is none."""
        for folder in FOLDERS:
            if str(folder) != "." and (folder / name).exists():
                return _read(folder / name)
        pytest.skip(f"the vendor's {name} is not beside the repository")

    def route(self, method: str, url: str) -> tuple[str, Mapping[str, Any]]:
        """The path as the file writes it, and its operation."""
        path = urlsplit(url).path
        for pattern, written in self._routes:
            operation = self.document["paths"][written].get(method.lower())
            if operation is not None and pattern.fullmatch(path):
                return written, operation
        raise AssertionError(f"{method} {path}: the OpenAPI file has no such route")

    def check_request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        strict: bool = True,
        allow: Mapping[str, str] | None = None,
    ) -> None:
        """Query and body of a request. *url* may be whole, with its query."""
        written, operation = self.route(method, url)
        item = self.document["paths"][written]
        declared = [self._resolve(one) for one in (*item.get("parameters", ()), *operation.get("parameters", ()))]
        query = {one["name"]: one for one in declared if one["in"] == "query"}
        given = {**dict(parse_qsl(urlsplit(url).query, keep_blank_values=True)), **(params or {})}
        known = allow or {}
        wrong = [f"query {name}: not in the file" for name in given if name not in query and f"?{name}" not in known]
        wrong += [f"query {name}: missing" for name, one in query.items() if one.get("required") and name not in given]
        for name, value in given.items():
            if name in query and f"?{name}" not in known:
                schema = query[name].get("schema", {})
                if not any(self._fits(schema, tried) for tried in _readings(value)):
                    wrong.append(f"query {name}={value!r}: not of {schema}")
        content = self._resolve(operation.get("requestBody", {})).get("content", {})
        if body is not None:
            schema = next((media.get("schema", {}) for kind, media in content.items() if "json" in kind), None)
            wrong += ["a body: none is declared"] if schema is None else self._errors(schema, body, strict, known)
        elif self._resolve(operation.get("requestBody", {})).get("required"):
            wrong.append("the body is missing")
        assert not wrong, f"{method} {written}: " + "; ".join(wrong)

    def check_reply(
        self,
        method: str,
        url: str,
        status: int,
        body: Any,
        *,
        strict: bool = True,
        allow: Mapping[str, str] | None = None,
    ) -> None:
        """Status and JSON body of a reply (``None``: it has no body)."""
        written, operation = self.route(method, url)
        replies = operation["responses"]
        names = (str(status), f"{status // 100}XX", "default")
        reply = next((replies[name] for name in names if name in replies), None)
        known = allow or {}
        if reply is None and str(status) in known:
            return
        assert reply is not None, f"{method} {written}: status {status} is not in the file ({', '.join(replies)})"
        content = self._resolve(reply).get("content", {})
        schema = next((media.get("schema", {}) for kind, media in content.items() if "json" in kind), None)
        if schema is None:
            assert body in (None, "", b"") or "" in known, f"{method} {written} {status}: no JSON body is declared"
            return
        wrong = self._errors(schema, body, strict, known)
        assert not wrong, f"{method} {written} {status}: " + "; ".join(wrong)

    def examples(self) -> Iterator[Example]:
        """Every example of a JSON body that the file has."""
        for path, item in self.document["paths"].items():
            for method, operation in item.items():
                if not isinstance(operation, Mapping) or "responses" not in operation:
                    continue
                bodies = [(None, operation.get("requestBody", {})), *operation["responses"].items()]
                for status, holder in bodies:
                    for kind, media in self._resolve(holder).get("content", {}).items():
                        if "json" not in kind:
                            continue
                        if "example" in media:
                            yield Example(method.upper(), path, status, "example", media["example"])
                        for name, one in media.get("examples", {}).items():
                            yield Example(method.upper(), path, status, name, self._resolve(one).get("value"))

    # -- inside

    def _resolve(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in node:
            found: Any = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part.replace("~1", "/").replace("~0", "~")]
            node = found
        return node

    def _whole(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """*schema* with the file's components beside it, so that its references resolve."""
        return {**schema, "components": self.document.get("components", {})}

    def _fits(self, schema: Mapping[str, Any], value: Any) -> bool:
        return self._validator(self._whole(schema)).is_valid(value)

    def _errors(self, schema: Mapping[str, Any], value: Any, strict: bool, allow: Mapping[str, str]) -> list[str]:
        found = [
            (_place(error.absolute_path), error.message[:300])
            for error in self._validator(self._whole(schema)).iter_errors(value)
        ]
        if strict:
            found += [(place, "not in the file") for place in self._unknown(schema, value, ())]
        return [f"{place or 'the body'}: {why}" for place, why in found if place not in allow]

    def _unknown(self, schema: Mapping[str, Any], value: Any, at: tuple[Any, ...]) -> Iterator[str]:
        """Places of *value* that no branch of *schema* names."""
        branches = list(self._branches(schema))
        if isinstance(value, Mapping):
            named = [one.get("properties", {}) for one in branches]
            free = any("additionalProperties" in one and one["additionalProperties"] is not False for one in branches)
            if not any(named) and not any("properties" in one for one in branches):
                return  # an object of any shape
            for key, inner in value.items():
                homes = [props[key] for props in named if key in props]
                if not homes and not free:
                    yield _place((*at, key))
                elif homes:
                    lost = [set(self._unknown(home, inner, (*at, key))) for home in homes]
                    yield from min(lost, key=len)
        elif isinstance(value, list):
            items = [one["items"] for one in branches if isinstance(one.get("items"), Mapping)]
            for index, inner in enumerate(value):
                if items:
                    yield from min((set(self._unknown(one, inner, (*at, index))) for one in items), key=len)

    def _branches(self, schema: Any) -> Iterator[Mapping[str, Any]]:
        if not isinstance(schema, Mapping):
            return
        schema = self._resolve(schema)
        yield schema
        for word in ("allOf", "anyOf", "oneOf"):
            for one in schema.get(word, ()):
                yield from self._branches(one)


@lru_cache
def _read(file: Path) -> OpenAPI:
    text = file.read_text(encoding="utf-8")
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return OpenAPI(json.loads(text) if file.suffix == ".json" else yaml.load(text, Loader=loader))


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\{[^}]+\})", path)
    return re.compile("".join("[^/]+" if part.startswith("{") else re.escape(part) for part in parts) + "/?")


def _place(path: Any) -> str:
    return "".join("[]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _readings(value: Any) -> Iterator[Any]:
    """What a query's text may stand for."""
    yield value
    if isinstance(value, str):
        yield [value]
        yield value.split(",")
        if value in ("true", "false"):
            yield value == "true"
        for kind in (int, float):
            try:
                yield kind(value)
            except ValueError:
                continue
