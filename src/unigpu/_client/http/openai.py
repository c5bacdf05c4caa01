"""Keyword arguments for the official `openai` package: its calls go to a deployment's own server.

A base URL and a header could not do it: a worker must be woken and waited for, and some platforms sign each call for
another host. So the object gets an ``http_client`` whose transport is ours. It is built on the library that the
installed `openai` is built on: httpx2 from generation 3 on, httpx before. Neither is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Final

from unigpu._io.bridge import run_sync
from unigpu._lifecycle import Asking, OpenReply
from unigpu.errors import ConfigurationError, DeadlineExceeded, TransportTimeout, UniGPUError

from ..calls import CallArguments, Calls
from ..handle_state import DeploymentView, inside
from ..lookup import DeploymentLike
from .request import CONNECTION, OURS, open_request

ORIGIN: Final = "http://unigpu.invalid"
"""What such an object believes to speak to; nothing else is let through, and no name server knows it."""
PLACEHOLDER: Final = "unigpu"
_DROPPED: Final = CONNECTION | {"accept-encoding"}  # what the body is coded in is between us and the worker
_EXECUTION: Final = 600.0
_FIRST_HTTPX2: Final = 3


def arguments(
    calls: Calls, deployment: DeploymentLike, start_timeout: float | None, *, is_async: bool
) -> dict[str, Any]:
    """See `Client.openai`. Nothing is sent."""
    gate = calls.gate
    calls.session.open()
    _, provider = calls.lookup.label(deployment)
    asked = CallArguments.checked(start_timeout, None)
    execution = _EXECUTION
    if isinstance(deployment, DeploymentView):
        info = inside(deployment)[0].info
        caps = gate.require("request", info, doing="openai()")
        execution = info.execution_timeout
    else:
        caps = gate.capabilities(provider, "http", "serverless")
    library = _library()
    start = gate.start_timeout(asked.start_timeout, caps)
    timeouts = _Timeouts(start, start + execution)
    make = library.AsyncClient if is_async else library.Client
    return {
        "base_url": f"{ORIGIN}/v1",
        "api_key": PLACEHOLDER,
        "max_retries": 0,
        "timeout": timeouts.whole,
        "http_client": make(
            transport=_transport(library, calls, deployment, timeouts, is_async=is_async),
            timeout=timeouts.whole,
            trust_env=False,
            follow_redirects=False,
        ),
    }


def _library() -> Any:
    """The HTTP library of the installed `openai`.

    Raises:
        ConfigurationError: there is none.
    """
    try:
        version = importlib.metadata.version("openai")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigurationError(
            "openai() needs the package openai, which is not installed.", hint="pip install openai"
        ) from None
    first = version.partition(".")[0]
    name = "httpx2" if first.isdigit() and int(first) >= _FIRST_HTTPX2 else "httpx"
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigurationError(
            f"openai {version} is built on {name}, which is not installed.", hint=f"pip install {name}"
        ) from None


def _asking(library: Any, request: Any, body: bytes) -> Asking:
    """What a request of that library asks of the worker.

    Raises:
        An error of the library, for another origin than ours.
    """
    url = request.url
    if f"{url.scheme}://{url.netloc.decode('ascii')}" != ORIGIN:
        raise library.UnsupportedProtocol(
            f"this client speaks to its deployment only, at {ORIGIN}, not to {url.host}", request=request
        )
    fields: list[tuple[str, str]] = []
    for name, value in request.headers.multi_items():
        low = name.lower()
        mine = low == "authorization" and value == f"Bearer {PLACEHOLDER}"
        if low not in _DROPPED and not low.startswith(OURS) and not mine:
            fields.append((low, value))
    return Asking(
        method=request.method,
        target=url.raw_path.decode("ascii"),
        headers=tuple(fields),
        content=body or None,
        read_timeout=request.extensions.get("timeout", {}).get("read"),
    )


@dataclass(frozen=True, slots=True)
class _Timeouts:
    """How long calls wait, in seconds: for a worker, and for the whole."""

    start: float
    whole: float

    def asked(self, read: float | None) -> CallArguments:
        """openai's own ``timeout=`` (*read*): where it is shorter it also cuts the wait for a worker, where it is
        longer it is the whole."""
        if read is None or read == self.whole:
            return CallArguments.checked(self.start, None)
        if read > self.whole:
            return CallArguments.checked(self.start, read)
        return CallArguments.checked(min(self.start, read), None)


def _failed(library: Any, request: Any, exc: UniGPUError, *, sent: bool) -> Exception:
    """Ours as the library's, which `openai` makes its own of: ours is then the cause of the cause."""
    late = isinstance(exc, DeadlineExceeded | TransportTimeout) or exc.stop_reason == "deadline"
    maybe = sent or exc.maybe_executed is True
    if late:
        kind = library.ReadTimeout if maybe else library.ConnectTimeout
    else:
        kind = library.ReadError if maybe else library.ConnectError
    made: Exception = kind(str(exc), request=request)
    made.__cause__ = exc
    return made


def _transport(library: Any, calls: Calls, deployment: DeploymentLike, timeouts: _Timeouts, *, is_async: bool) -> Any:
    """The classes are made here, because their bases are a library's that may not be there."""

    async def opened(request: Any, body: bytes) -> OpenReply:
        what = _asking(library, request, body)
        return await open_request(calls, deployment, what, timeouts.asked(what.read_timeout), verb="openai")

    def response(reply: OpenReply, stream: Any) -> Any:
        headers = [(name, value) for name in reply.headers for value in reply.headers.getall(name)]
        return library.Response(reply.status, headers=headers, stream=stream)

    class Body(library.SyncByteStream):  # type: ignore[misc]  # the library is loaded at run time
        def __init__(self, reply: OpenReply, request: Any) -> None:
            self._reply, self._request = reply, request

        def __iter__(self) -> Iterator[bytes]:
            while True:
                try:
                    chunk = run_sync(self._reply.next())
                except UniGPUError as exc:
                    raise _failed(library, self._request, exc, sent=True) from exc
                if chunk is None:
                    return
                yield chunk

        def close(self) -> None:
            run_sync(self._reply.aclose())

    class AsyncBody(library.AsyncByteStream):  # type: ignore[misc]  # the library is loaded at run time
        def __init__(self, reply: OpenReply, request: Any) -> None:
            self._reply, self._request = reply, request

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            try:
                chunk = await self._reply.next()
            except UniGPUError as exc:
                raise _failed(library, self._request, exc, sent=True) from exc
            if chunk is None:
                raise StopAsyncIteration
            return chunk

        async def aclose(self) -> None:
            await self._reply.aclose()

    class Transport(library.BaseTransport):  # type: ignore[misc]  # the library is loaded at run time
        def handle_request(self, request: Any) -> Any:
            try:
                reply = run_sync(opened(request, request.read()))
            except UniGPUError as exc:
                raise _failed(library, request, exc, sent=False) from exc
            return response(reply, Body(reply, request))

    class AsyncTransport(library.AsyncBaseTransport):  # type: ignore[misc]  # the library is loaded at run time
        async def handle_async_request(self, request: Any) -> Any:
            try:
                reply = await opened(request, await request.aread())
            except UniGPUError as exc:
                raise _failed(library, request, exc, sent=False) from exc
            return response(reply, AsyncBody(reply, request))

    return AsyncTransport() if is_async else Transport()
