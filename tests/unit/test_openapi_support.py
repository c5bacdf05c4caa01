"""The check of requests and replies against an OpenAPI file finds what is wrong, and lets pass what is right."""

from __future__ import annotations

import pytest
from openapi import OpenAPI

SPEC = OpenAPI(
    {
        "openapi": "3.1.0",
        "paths": {
            "/v2/things/{id}": {
                "patch": {
                    "parameters": [
                        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
                        {"name": "force", "in": "query", "schema": {"type": "boolean"}},
                    ],
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}},
                    },
                    "responses": {
                        "200": {
                            "content": {
                                "application/json": {
                                    "schema": {"$ref": "#/components/schemas/Thing"},
                                    "example": {"name": "a"},
                                }
                            }
                        },
                        "204": {},
                    },
                }
            }
        },
        "components": {
            "schemas": {
                "Thing": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"type": "string"},
                        "limits": {"type": "array", "items": {"$ref": "#/components/schemas/Limit"}},
                    },
                },
                "Limit": {"type": "object", "properties": {"max": {"type": "integer"}}},
            }
        },
    }
)
URL = "https://api.example/v2/things/7"


def test_what_is_right_passes() -> None:
    SPEC.check_request("PATCH", f"{URL}?force=true", body={"name": "a", "limits": [{"max": 3}]})
    SPEC.check_reply("PATCH", URL, 200, {"name": "a"})
    SPEC.check_reply("PATCH", URL, 204, None)
    assert [example.value for example in SPEC.examples()] == [{"name": "a"}]


@pytest.mark.parametrize(
    ("url", "body", "said"),
    [
        (URL, None, "body is missing"),
        (URL, {}, "required"),
        (URL, {"name": 3}, "name"),
        (URL, {"name": "a", "nmae": 1}, "nmae: not in the file"),
        (URL, {"name": "a", "limits": [{"max": 1}, {"mx": 1}]}, r"limits\[\].mx"),
        (f"{URL}?force=7", {"name": "a"}, "force"),
        (f"{URL}?other=1", {"name": "a"}, "other"),
        ("https://api.example/v3/things/7", {"name": "a"}, "no such route"),
    ],
)
def test_what_is_wrong_is_named(url: str, body: object, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        SPEC.check_request("PATCH", url, body=body)


def test_a_known_deviation_is_let_pass_by_its_place() -> None:
    SPEC.check_request("PATCH", URL, body={"name": "a", "limits": [{"mx": 1}]}, allow={"limits[].mx": "the changelog"})


def test_an_undeclared_status_is_named() -> None:
    with pytest.raises(AssertionError, match="status 500"):
        SPEC.check_reply("PATCH", URL, 500, {})
