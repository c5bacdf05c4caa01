"""A worker that speaks the protocol of chat completions, and tells what it saw. It loads for half a second."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

seen: dict[str, Any] = {"sent": 0, "closed": 0, "authorization": [], "fields": []}
go = asyncio.Event()


def chunk(i: int) -> str:
    choice = {"index": 0, "delta": {"content": f"t{i}"}, "finish_reason": None}
    data = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(data)}\n\n"


async def tokens(most: int) -> AsyncIterator[str]:
    """The first one at once, the rest when it is told to go on."""
    try:
        for i in range(most):
            seen["sent"] += 1
            yield chunk(i)
            await go.wait()
        yield "data: [DONE]\n\n"
    finally:
        seen["closed"] += 1


async def chat(request: Request) -> Response:
    seen["authorization"].append(request.headers.get("authorization"))
    seen["fields"] = sorted(request.headers.keys())
    body = await request.json()
    if body["model"] == "broken":
        return JSONResponse({"error": {"message": "out of memory", "type": "server_error"}}, status_code=500)
    if body.get("stream"):
        go.clear()
        return StreamingResponse(tokens(body.get("max_tokens", 3)), media_type="text/event-stream")
    message = {"role": "assistant", "content": "hello"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return JSONResponse(
        {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
    )


async def proceed(_: Request) -> Response:
    go.set()
    return JSONResponse(seen)


async def stats(_: Request) -> Response:
    return JSONResponse(seen)


if __name__ == "__main__":
    time.sleep(0.5)
    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/go", proceed, methods=["POST"]),
        Route("/stats", stats),
    ]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(os.environ["PORT"]), log_level="error")
