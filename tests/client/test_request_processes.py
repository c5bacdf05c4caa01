"""`request` with a real server behind a real supervisor."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest

from unigpu import StreamInterrupted, WorkerLost

pytestmark = pytest.mark.processes

SERVER = Path(__file__).with_name("own_server.py")


def test_bodies_statuses_and_streams_of_a_real_server(flavour: Any) -> None:
    async def work(client: Any) -> None:
        command = [sys.executable, str(SERVER)]
        spec = {"name": "own", "interface": "http", "command": command, "concurrency": 4, "progress": "off"}
        async with await client.deploy(**spec) as app:
            large = await app.request("POST", "/echo?x=1", content=b"x" * 3_000_000)
            assert large.json() == {"method": "POST", "path": "/echo?x=1", "size": 3_000_000, "auth": None}
            assert "x-unigpu-error" not in large.headers
            head = await app.request("HEAD", "/")
            assert (head.status, head.content) == (200, b"")
            assert (await app.request("DELETE", "/busy")).status == 503

            async with await app.request("GET", "/parts", stream=True) as reply:
                parts = aiter(reply)
                assert await anext(parts) == b"first"
                await app.request("GET", "/go")
                assert b"".join([part async for part in parts]) == b"later"

            async with await app.request("GET", "/parts/broken", stream=True) as reply:
                parts = aiter(reply)
                assert await anext(parts) == b"first"
                await app.request("GET", "/go")
                with pytest.raises(StreamInterrupted, match="after 5 bytes"):
                    await anext(parts)

            async with await app.request("GET", "/parts", stream=True) as reply:
                assert await anext(aiter(reply)) == b"first"
            assert (await app.request("GET", "/go")).ok, "one that was left holds nothing"

            with pytest.raises(WorkerLost):
                await app.request("POST", "/die")
            reply = None
            while reply is None:  # the kernel of a dying worker may still take a request or two
                with contextlib.suppress(WorkerLost):
                    reply = await app.request("GET", "/")
            assert reply.ok, "the next one gets the next worker"

    flavour.run(work, "local")
