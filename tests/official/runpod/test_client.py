"""RunPod's own client, synchronous and asyncio, unmodified, against the emulator, with RunPod's own worker program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SIX = {"idle", "initializing", "ready", "running", "throttled", "unhealthy"}


def test_the_synchronous_client_works_unmodified(cloud: Any, official: Callable[..., dict[str, Any]]) -> None:
    found = official("client_sync.py", cloud.base, cloud.key, " ".join(cloud.worker))
    assert {"displayName", "id", "memoryInGb"} <= set(found["gpus"])
    assert found["template"] == {
        "name": "sync-proof",
        "imageName": "ghcr.io/me/app:1",
        "isServerless": True,
        "dockerArgs": " ".join(cloud.worker),
    }
    assert found["endpoint"] == {
        "name": "sync-proof",
        "gpuIds": "ADA_24",
        "workersMax": 1,
        "idleTimeout": 60,
        "flashBootType": "FLASHBOOT",
    }
    assert {"sync-proof", "sync-proof-stream"} <= set(found["endpoints"])
    assert "not in any selected pool" in found["refused"]
    assert found["run_sync"] == {"echo": {"text": "a"}}
    assert found["status"] in ("IN_QUEUE", "IN_PROGRESS")
    assert found["run"] == {"echo": {"text": "b", "sleep": 0.2}}
    assert set(found["health"]["workers"]) == SIX
    assert found["health"]["jobs"]["completed"] == 2
    assert (found["cancel"], found["cancelled"]) == ("CANCELLED", "CANCELLED")
    assert found["purge"] == {"removed": 3, "status": "completed"}
    assert found["busy"] == {"echo": {"sleep": 2}}
    assert found["stream"] == [{"number": n} for n in range(5)]
    assert found["aggregate"] == found["stream"]
    assert found["wrong_key"].startswith("401")
    # What it does wrongly by itself, whatever the other side says.
    assert found["stream_of_a_cancelled_job_goes_on"] is True
    assert found["failed"] == [None, "FAILED"]
    assert found["empty"] == {"echo": {"input": {}}}
    assert found["no_wait"] is None


def test_the_asyncio_client_works_unmodified(cloud: Any, official: Callable[..., dict[str, Any]]) -> None:
    plain = cloud.make("async-proof")["id"]
    streaming = cloud.make("async-proof-stream", workers=(1, 1), env={"MODE": "stream"})["id"]
    found = official("client_async.py", cloud.key, plain, streaming)
    assert found["status"] in ("IN_QUEUE", "IN_PROGRESS")
    assert found["run"] == {"echo": {"text": "a"}}
    assert set(found["health"]["workers"]) == SIX
    assert (found["cancel"], found["cancelled"]) == ("CANCELLED", "CANCELLED")
    assert found["purge"] == {"removed": 3, "status": "completed"}
    assert found["busy"] == {"echo": {"sleep": 2}}
    assert found["stream"] == [{"number": n} for n in range(5)]
    assert found["many"] == [{"echo": {"n": n}} for n in range(3)]
    # What it does wrongly by itself.
    assert found["failed"] == [None, "FAILED"]
    assert found["no_wait"] == "Job timed out."
