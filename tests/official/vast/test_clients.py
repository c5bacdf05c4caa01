"""Vast's own clients, unmodified, against the emulator: the synchronous one, the command line, the serverless one."""

from __future__ import annotations

import json
from typing import Any

ENV = {
    "name": "theirs",
    "image": "registry.test/app:1",
    "runtype": "args",
    "args_str": "python -m unigpu.worker app:work",
}


def test_the_synchronous_client_makes_shows_changes_and_deletes(cloud: Any) -> None:
    told = cloud.run("sdk.py")
    assert told["user"] == 7
    assert told["template"] == ["sdk", 32]
    assert told["templates"] == [True]
    assert told["endpoints"] == [["sdk", 2]]
    assert told["workergroup"] == ["sdk", {"lte": 0.01}, {"eq": True}]
    assert (told["scaled"], told["max_workers"]) == (True, [5])
    assert told["workers"] == []
    assert told["logs"] == told["group_logs"] == ["debug", "info0", "info1", "trace"]
    assert told["updated"]["success"] is True
    assert told["offers"][0] == ["RTX 4090", True]
    assert told["instance"] == ["sdk", ["sdk"]]
    assert (told["labelled"], told["stopped"], told["destroyed"], told["gone"]) == (True, True, True, None)
    assert told["deleted"] == [True, True, True]
    assert told["left"] == []


def test_the_command_line_makes_shows_scales_and_deletes(cloud: Any) -> None:
    limits = ["--cold_workers", "0", "--max_workers", "1", "--cold_mult", "1"]
    assert "success" in cloud.cli("create", "endpoint", "--endpoint_name", "by-cli", *limits)
    rows = json.loads(cloud.cli("show", "endpoints", "--raw"))
    (row,) = [row for row in rows if row["endpoint_name"] == "by-cli"]
    cloud.cli("update", "endpoint", str(row["id"]), "--max_workers", "4")
    read = cloud.http.get(f"{cloud.base}/api/v0/endptjobs/{row['id']}/").json()["result"]
    assert read["max_workers"] == 4
    offers = json.loads(cloud.cli("search", "offers", "gpu_name=RTX_4090 num_gpus=1", "--raw"))
    assert {one["gpu_name"] for one in offers} == {"RTX 4090"}
    cloud.cli("delete", "endpoint", str(row["id"]))
    rows = json.loads(cloud.cli("show", "endpoints", "--raw"))
    assert row["id"] not in [one["id"] for one in rows]


def test_the_serverless_client_makes_calls_and_deletes_an_endpoint_of_its_own(cloud: Any) -> None:
    template = cloud.http.post(f"{cloud.base}/api/v0/template/", json={**ENV, "env": "-p 3000:3000"}).json()["template"]
    told = cloud.run("lifecycle.py", template["hash_id"])
    assert told["found"] is True
    ok, answer = told["answer"]
    assert (ok, answer["output"]) == (True, [{"echo": {"n": 1}}])
    assert told["update"]["success"] is True
    assert told["left"] == []
