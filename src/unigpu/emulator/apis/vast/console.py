"""The console's half of the Vast emulator: templates, endpoints, workergroups, offers, and small things beside them.

Sources: https://docs.vast.ai/api-reference/serverless/create-endpoint.md and its neighbours, the specification that
Vast generates from its code (https://github.com/vast-ai/docs/pull/915), and what the official client sends (vastai
1.9.1, ``api/endpoints.py``, ``api/offers.py``, ``serverless/client/client.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, cast

from unigpu.emulator.contract import JSON, HttpCall, Launch, Reply, worker_number
from unigpu.emulator.engine import DeploymentTerms, EngineDeployment, EngineRefused

from .market import BadQuery, filters_of, offers, select
from .scaling import DEFAULTS, settings_of, settle, taken_offers, template_of
from .state import (
    ENDPOINT,
    TEMPLATE,
    WORKERGROUP,
    VastAccount,
    Wrong,
    body_of,
    engine_id,
    number,
    number_of,
    whole,
    words,
)

USER: Final = 7
_NAME_LIMIT: Final = 255
_TEMPLATE_FIELDS: Final = (
    "name", "image", "tag", "env", "onstart", "runtype", "args_str", "use_ssh", "ssh_direct", "jup_direct",
    "use_jupyter_lab", "jupyter_dir", "recommended_disk_space", "extra_filters", "docker_login_repo", "private", "desc",
    "readme", "readme_visible", "href", "repo", "volume_info",
)  # fmt: skip


class Console:
    """Templates, endpoints, workergroups and offers of one account."""

    def __init__(self, account: VastAccount) -> None:
        self._account = account
        self._engine = account.engine
        self._searches = (0, 0)  # the day, and how many

    def answer(self, operation: str, ids: tuple[str, ...], call: HttpCall, now: float, base: str) -> Reply | None:
        """The answer of one of these routes; ``None``: it is none of them."""
        match operation:
            case "template.create":
                return self._make_template(body_of(call), now)
            case "template.list":
                return self._list_templates(call, now)
            case "template.edit":
                return self._edit_template(body_of(call), now)
            case "template.delete":
                return self._delete_template(body_of(call), now)
            case "endpoint.create":
                return self._make_endpoint(body_of(call), now)
            case "endpoint.list":
                return self._list_endpoints(now)
            case "endpoint.get" | "endpoint.put" | "endpoint.delete":
                return self._about_endpoint(operation, _integer(ids[0]), call, now)
            case "workergroup.create":
                return self._make_group(body_of(call), now, base)
            case "workergroup.list":
                rows = self._account.listed(WORKERGROUP, now)
                return Reply.json({"success": True, "results": [self._group_json(one, now) for one in rows]})
            case "workergroup.put" | "workergroup.delete":
                return self._about_group(operation, _integer(ids[0]), call, now, base)
            case "offer.search" | "offer.query":
                return self._offers(body_of(call), now, wrapped=operation == "offer.query")
            case "user.get":
                return Reply.json(
                    {
                        "id": USER,
                        "email": "someone@example.com",
                        "balance": 25.0,
                        "credit": 25.0,
                        "ssh_key": "",
                        "sid": "",
                    }
                )
            case "gpu.names":
                names = sorted({str(row["gpu_name"]) for row in self._rows({}, now)})
                return Reply.json({"gpu_names": names})
            case _:
                return None

    # -- templates

    def _make_template(self, body: Mapping[str, Any], now: float) -> Reply:
        if not words(body, "name") or not words(body, "image"):
            raise Wrong(400, "invalid_args", "name and image are needed")
        fields = _template_fields(body)
        hash_id = _hash(fields)
        for one in self._account.all(TEMPLATE, now):
            if one.terms.data["hash_id"] == hash_id:
                known = not self._account.quirks.known_template_fails
                return Reply.json(
                    {"success": known, "msg": "This template exists already.", "template": _template_json(one)}
                )
        data = {**fields, "hash_id": hash_id}
        id = engine_id(TEMPLATE, self._account.new_number(TEMPLATE))
        made = self._engine.deployments.create(
            id, TEMPLATE, DeploymentTerms(launch=Launch(), max_workers=0, data=data), now
        )
        message = f"Template Created Successfully! {fields['name']}"
        return Reply.json({"success": True, "msg": message, "template": _template_json(made)})

    def _list_templates(self, call: HttpCall, now: float) -> Reply:
        rows: list[Mapping[str, JSON]] = [_template_json(one) for one in self._account.listed(TEMPLATE, now)]
        try:
            filters: object = json.loads(call.query.get("select_filters") or "{}")
            found = select(rows, {**cast("dict[str, JSON]", filters), "order": [["id", "asc"]]})
        except (ValueError, TypeError, BadQuery) as exc:
            raise Wrong(400, "invalid_args", f"select_filters: {exc}") from None
        return Reply.json({"success": True, "templates_found": len(found), "templates": found})

    def _edit_template(self, body: Mapping[str, Any], now: float) -> Reply:
        one = template_of(self._account, {"template_hash": body.get("hash_id"), "template_id": None}, now)
        if one is None:
            raise Wrong(404, "not_found", "there is no template of this hash")
        fields = {**{name: one.terms.data[name] for name in _TEMPLATE_FIELDS if name in one.terms.data}, **_given(body)}
        data = {**fields, "hash_id": _hash(fields)}
        self._engine.deployments.replace(one.id, DeploymentTerms(launch=Launch(), max_workers=0, data=data), now)
        return Reply.json(
            {"success": True, "template": _template_json(self._account.find(TEMPLATE, number_of(one), now))}
        )

    def _delete_template(self, body: Mapping[str, Any], now: float) -> Reply:
        try:
            one = self._account.find(TEMPLATE, whole(body, "template_id", 0), now)
        except EngineRefused:
            wanted = template_of(self._account, {"template_hash": body.get("hash_id"), "template_id": None}, now)
            if wanted is None or body.get("hash_id") is None:
                raise Wrong(404, "not_found", "there is no such template") from None
            one = wanted
        self._engine.deployments.delete(one.id, now)
        return Reply.json({"success": True, "msg": "Template deleted"})

    # -- endpoints

    def _make_endpoint(self, body: Mapping[str, Any], now: float) -> Reply:
        name = words(body, "endpoint_name")
        if not name or len(name) > _NAME_LIMIT or not _is_name(name):
            raise Wrong(400, "invalid_args", "endpoint_name is needed: letters, digits, spaces, _ and -")
        known = [one for one in self._account.all(ENDPOINT, now) if one.terms.data["name"] == name]
        if known and not self._account.quirks.duplicate_names:
            raise Wrong(400, "invalid_args", f"an endpoint named {name} exists already")
        fields = settings_of(body, DEFAULTS)
        data = {**fields, "name": name, "api_key": self._account.text(256)}
        id = engine_id(ENDPOINT, self._account.new_number(ENDPOINT))
        one = self._engine.deployments.create(
            id, ENDPOINT, DeploymentTerms(launch=Launch(), max_workers=0, data=data), now
        )
        settle(self._account, one, now)
        return Reply.json({"success": True, "result": number_of(one)})

    def _list_endpoints(self, now: float) -> Reply:
        rows = self._account.listed(ENDPOINT, now)
        if not rows and self._account.quirks.empty_list_400:
            raise Wrong(400, "invalid_args", "no endpoints for user")
        return Reply.json({"success": True, "results": [self._endpoint_json(one) for one in rows]})

    def _about_endpoint(self, operation: str, id: int, call: HttpCall, now: float) -> Reply:
        try:
            one = self._account.find(ENDPOINT, id, now)
        except EngineRefused:
            raise self._no_endpoint(operation) from None
        if operation == "endpoint.get":
            return Reply.json({"success": True, "result": self._endpoint_json(one)})
        if operation == "endpoint.delete":
            return self._delete_endpoint(one, now)
        body = body_of(call)
        changes = settings_of(body, {key: one.terms.data[key] for key in (*DEFAULTS, "endpoint_state")})
        name = words(body, "endpoint_name", str(one.terms.data["name"]))
        settle(self._account, one, now, changes={**changes, "name": name})
        return Reply.json({"success": True})

    def _delete_endpoint(self, one: EngineDeployment, now: float) -> Reply:
        for group in self._account.all(WORKERGROUP, now):
            if group.terms.data["endpoint_id"] == number_of(one):
                self._engine.deployments.delete(group.id, now)
        workers = self._workers(one)
        self._engine.deployments.delete(one.id, now)
        return Reply.json(
            {"success": True, "deleted_workers": workers, "failed_workers": [], "msg": "Endpoint deleted successfully"}
        )

    def _no_endpoint(self, operation: str) -> Wrong:
        if operation == "endpoint.put":
            return Wrong(400, "invalid_args", "Endpointgroup not found for user")
        if operation == "endpoint.delete":
            status = self._account.quirks.gone_endpoint
            return Wrong(status, "invalid_args" if status == 400 else "not_found", "Routegroup not found for user")
        return Wrong(404, "not_found", "there is no such endpoint")

    def _endpoint_json(self, one: EngineDeployment) -> dict[str, JSON]:
        data = one.terms.data
        deleted_at = data.get("deleted_at")
        left = None if deleted_at is None else float(deleted_at) - self._engine.wall(self._engine.now)
        return {
            "id": number_of(one),
            "endpoint_name": data["name"],
            "endpoint_state": data["endpoint_state"],
            **{name: data[name] for name in DEFAULTS},
            "api_key": data["api_key"],
            "user_id": USER,
            "created_at": self._engine.wall(one.created_at),
            "auto_delete_in_seconds": left,
            "auto_delete_due_24h": left is not None and left < 86_400.0,
        }

    # -- workergroups

    def _make_group(self, body: Mapping[str, Any], now: float, base: str) -> Reply:
        endpoint = self._endpoint_named(body, now)
        data = self._group_data(body, {}, now, base)
        data |= {"endpoint_id": number_of(endpoint), "api_key": self._account.text(256)}
        id = engine_id(WORKERGROUP, self._account.new_number(WORKERGROUP))
        made = self._engine.deployments.create(
            id, WORKERGROUP, DeploymentTerms(launch=Launch(), max_workers=0, data=data), now
        )
        settle(self._account, endpoint, now)
        return Reply.json({"success": True, "id": number_of(made)})

    def _about_group(self, operation: str, id: int, call: HttpCall, now: float, base: str) -> Reply:
        try:
            one = self._account.find(WORKERGROUP, id, now)
        except EngineRefused:
            if operation == "workergroup.put":
                raise Wrong(400, "invalid_args", "Workergroup not found for user") from None
            raise Wrong(404, "no_such_workergroup", "Invalid autojob ID", id=id) from None
        endpoint = self._account.find(ENDPOINT, int(one.terms.data["endpoint_id"]), now)
        if operation == "workergroup.delete":
            workers = self._workers(endpoint)
            self._engine.deployments.delete(one.id, now)
            for worker in list(endpoint.workers.values()):
                self._engine.end_worker(endpoint.id, worker.id, now)
            for kept in list(endpoint.shelf):
                self._engine.end_worker(endpoint.id, kept, now)
            settle(self._account, endpoint, now)
            return Reply.json(
                {"success": True, "deleted_workers": workers, "failed_workers": [], "msg": "Workergroup deleted"}
            )
        body = body_of(call)
        if body.get("endpoint_id") is None:
            raise Wrong(400, "invalid_args", "endpoint_id is needed")
        data = self._group_data(body, one.terms.data, now, base)
        self._engine.deployments.replace(one.id, DeploymentTerms(launch=Launch(), max_workers=0, data=data), now)
        settle(self._account, endpoint, now)
        return Reply.json({"success": True})

    def _endpoint_named(self, body: Mapping[str, Any], now: float) -> EngineDeployment:
        missing = Wrong(400, "invalid_args", "Please assign your workergroup to a valid endpoint identifier")
        id, name = body.get("endpoint_id"), body.get("endpoint_name")
        if id is not None:
            try:
                return self._account.find(ENDPOINT, whole(body, "endpoint_id", 0), now)
            except EngineRefused:
                raise missing from None
        found = [one for one in self._account.all(ENDPOINT, now) if one.terms.data["name"] == name]
        if found:
            return found[0]
        if not isinstance(name, str) or not name:
            raise missing
        # An unknown name makes an endpoint of its own (https://github.com/vast-ai/docs/pull/915, post_api_v0_autojobs).
        self._make_endpoint({"endpoint_name": name}, now)
        return next(one for one in self._account.all(ENDPOINT, now) if one.terms.data["name"] == name)

    def _group_data(
        self, body: Mapping[str, Any], before: Mapping[str, JSON], now: float, base: str
    ) -> dict[str, JSON]:
        found = dict(before) or {
            "template_hash": None,
            "template_id": None,
            "launch_args": "",
            "gpu_ram": 24.0,
            "test_workers": 3,
        }
        for name in ("template_hash", "template_id", "launch_args", "gpu_ram", "test_workers"):
            if body.get(name) is not None:
                found[name] = body[name]
        if body.get("template_hash") is not None:
            found["template_id"] = None
        number(found, "gpu_ram", 24.0)
        template = template_of(self._account, found, now)
        if template is not None:  # kept as it is now: a later edit reaches no worker before the group is told again
            found |= {"template": dict(template.terms.data), "template_id": number_of(template)}
            found["template_hash"] = template.terms.data["hash_id"]
        elif "template" not in found or body.get("template_hash") is not None:
            raise Wrong(400, "invalid_args", "a template_hash or template_id of yours is needed")
        if "search_params" in body or "search_query" not in found:
            try:
                query = filters_of(body.get("search_params"))
            except BadQuery as exc:
                raise Wrong(400, "invalid_args", str(exc)) from None
            extra: object = cast("Mapping[str, JSON]", found["template"]).get("extra_filters") or {}
            if isinstance(extra, str):
                extra = json.loads(extra or "{}")
            found["search_query"] = {**cast("dict[str, JSON]", extra), **query}
        found["base"] = base or found.get("base")
        return found

    def _group_json(self, one: EngineDeployment, now: float) -> dict[str, JSON]:
        data = one.terms.data
        endpoint = (
            self._engine.deployments.get(engine_id(ENDPOINT, int(data["endpoint_id"])), now)
            if self._has(one, now)
            else None
        )
        return {
            "id": number_of(one),
            "endpoint_id": data["endpoint_id"],
            "endpoint_name": "" if endpoint is None else endpoint.terms.data["name"],
            "template_hash": data["template_hash"],
            "template_id": data["template_id"],
            "search_query": data["search_query"],
            "launch_args": data["launch_args"],
            "gpu_ram": data["gpu_ram"],
            "test_workers": data["test_workers"],
            "api_key": data["api_key"],
            "user_id": USER,
            "created_at": self._engine.wall(one.created_at),
        }

    def _has(self, group: EngineDeployment, now: float) -> bool:
        return any(number_of(one) == group.terms.data["endpoint_id"] for one in self._account.all(ENDPOINT, now))

    def _workers(self, endpoint: EngineDeployment) -> list[int]:
        living = [
            worker for worker in self._engine.workers(endpoint.id) if not worker.gone or worker.id in endpoint.shelf
        ]
        return [worker_number(worker.id) for worker in living]

    # -- offers

    def _offers(self, body: Mapping[str, Any], now: float, *, wrapped: bool) -> Reply:
        if (refused := self._count_search(now)) is not None:
            return refused
        query = cast("Mapping[str, Any]", body.get("q") or {}) if wrapped else body
        try:
            return Reply.json({"offers": self._rows(query, now)})
        except BadQuery as exc:
            return Reply.json({"error": "invalid_args", "msg": str(exc)}, status=400)

    def _rows(self, query: Mapping[str, Any], now: float) -> list[Mapping[str, JSON]]:
        disk = number(query, "allocated_storage", 8.0)
        rows = offers(now=self._engine.wall(now), disk_gb=disk, taken=taken_offers(self._account, now))
        return select(rows, query)

    def _count_search(self, now: float) -> Reply | None:
        """The answer where the day's searches are used up: until midnight UTC."""
        most = self._account.quirks.searches_a_day
        day = int(self._engine.wall(now) // 86_400)
        count = self._searches[1] + 1 if self._searches[0] == day else 1
        self._searches = (day, count)
        if most is None or count <= most:
            return None
        reset = (("content-type", "application/json"), ("x-ratelimit-reset", str((day + 1) * 86_400)))
        body = json.dumps({"success": False, "error": "search_quota_exceeded", "msg": "no searches left today"})
        return Reply(status=429, headers=reset, body=body.encode())


def _given(body: Mapping[str, Any]) -> dict[str, JSON]:
    return {name: body[name] for name in _TEMPLATE_FIELDS if body.get(name) is not None}


def _template_fields(body: Mapping[str, Any]) -> dict[str, JSON]:
    words(body, "env")
    words(body, "onstart")
    number(body, "recommended_disk_space", 8.0)
    return {"tag": "latest", "runtype": "args", "recommended_disk_space": 8.0, **_given(body)}


def _hash(fields: Mapping[str, JSON]) -> str:
    """Templates are addressed by their content."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]


def _template_json(one: EngineDeployment) -> dict[str, JSON]:
    data = one.terms.data
    shown = {name: data.get(name) for name in _TEMPLATE_FIELDS if name in data}
    return {"id": number_of(one), "hash_id": data["hash_id"], "creator_id": USER, **shown}


def _is_name(name: str) -> bool:
    return all(letter.isalnum() or letter in "_- ." for letter in name)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise Wrong(400, "invalid_args", f"{text!r} is no id") from None
