"""A platform that answers in the order of a script, for tests of what drivers share."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from unigpu._io.in_memory import MemoryIo, MemoryStream
from unigpu.driver import DeploymentInfo, Headers, Request, Response

INFO = DeploymentInfo(provider="acme", name="chat", provider_name="chat-ug", id="e/1", url="https://w.test")


class World:
    """Answers requests in order, each with ``(status, body)`` or a `MemoryStream`, and keeps them."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Response | MemoryStream:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, MemoryStream) else reply(*answer, operation=request.operation)

    @property
    def io(self) -> MemoryIo:
        return MemoryIo(self, sync=True)

    @property
    def sent(self) -> list[str]:
        return [f"{one.method} {one.url}" for one in self.requests]


def reply(status: int, body: Any, *, operation: str = "acme.x.get") -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status=status, headers=Headers(), content=content, operation=operation)


def streamed(pieces: Sequence[bytes], *, status: int = 200, fails: Exception | None = None) -> MemoryStream:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
        if fails is not None:
            raise fails

    return MemoryStream(status=status, body=body())
