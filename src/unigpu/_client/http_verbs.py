"""The verbs of an http deployment, `request` and `openai`, for both clients and both handles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

from unigpu._io.bridge import run_sync

from .calls import CallArguments, Calls
from .http import openai
from .http.request import HTTPReply, Params, asking, open_request, whole
from .http.streams import AsyncHTTPStream, HTTPStream

if TYPE_CHECKING:
    from .async_client import AsyncClient
    from .async_handles import AsyncDeployment
    from .sync_client import Client
    from .sync_handles import Deployment


class HTTPVerbs:
    """What `Client` can do with an http deployment."""

    _calls: Calls

    @overload
    def request(
        self,
        deployment: Deployment | str,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: Literal[False] = False,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> HTTPReply: ...

    @overload
    def request(
        self,
        deployment: Deployment | str,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: Literal[True],
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> HTTPStream: ...

    @overload
    def request(
        self,
        deployment: Deployment | str,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: bool,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> HTTPReply | HTTPStream: ...

    def request(
        self,
        deployment: Deployment | str,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: bool = False,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> HTTPReply | HTTPStream:
        """Send a request to the user's own server, and get its reply, whatever its status.

        It is held while a worker starts. An error status of the server is data; only where no answer came is it an
        error of ours. It is sent once, and again only where it certainly did not arrive, or the deployment is
        ``idempotent``.

        Args:
            path: Path and query below the deployment, as in ``"/v1/models"``.
            json: Sent as a JSON body.
            content: Sent as the body as it is; a text as UTF-8.
            params: Added to the query; a list is a name said several times.
            stream: Return when status and headers are there, with the body still on its way; use it with ``with``.
            start_timeout: Seconds it may wait while no worker is ready; default: the high end of a cold start here.
            timeout: Seconds in all, the body included; default: that and the execution timeout together.
            wake: Whether it may start a worker.

        Raises:
            ConfigurationError: something given cannot be sent as it is.
            UnsupportedError: it is a function deployment, or a WebSocket is asked for.
            NoWorkerReady: no worker was ready in time.
            DeadlineExceeded: it took longer than *timeout*.
            WorkerLost, ResultUnknown: it was sent, and no answer came.
            StreamInterrupted: the reply broke off.
        """
        what, websocket = asking(method, path, json=json, content=content, headers=headers, params=params)
        asked = CallArguments.checked(start_timeout, timeout, wake=wake)
        opening = open_request(self._calls, deployment, what, asked, websocket=websocket, stream=stream)
        reply = run_sync(opening)
        return HTTPStream(reply) if stream else run_sync(whole(reply))

    def openai(self, deployment: Deployment | str, *, start_timeout: float | None = None) -> dict[str, Any]:
        """Keyword arguments of the official ``openai`` package: ``OpenAI(**client.openai("chat"))``.

        Its calls go to the deployment's own server, wake it, and wait for its first worker. What fails is an error of
        ``openai``'s; ours is the cause of its cause. The account's key never reaches that object.

        Args:
            start_timeout: Seconds a call may wait while no worker is ready; default: the high end of a cold start here.

        Raises:
            ConfigurationError: the package ``openai`` is not installed.
            UnsupportedError: it is a function deployment.
        """
        return openai.arguments(self._calls, deployment, start_timeout, is_async=False)


class AsyncHTTPVerbs:
    """What `AsyncClient` can do with an http deployment."""

    _calls: Calls

    @overload
    async def request(
        self,
        deployment: AsyncDeployment | str,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: Literal[False] = False,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> HTTPReply: ...

    @overload
    async def request(
        self,
        deployment: AsyncDeployment | str,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: Literal[True],
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> AsyncHTTPStream: ...

    @overload
    async def request(
        self,
        deployment: AsyncDeployment | str,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: bool,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> HTTPReply | AsyncHTTPStream: ...

    async def request(
        self,
        deployment: AsyncDeployment | str,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: bool = False,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> HTTPReply | AsyncHTTPStream:
        """Send a request to the user's own server, and get its reply, whatever its status.

        It is held while a worker starts. An error status of the server is data; only where no answer came is it an
        error of ours. It is sent once, and again only where it certainly did not arrive, or the deployment is
        ``idempotent``.

        Args:
            path: Path and query below the deployment, as in ``"/v1/models"``.
            json: Sent as a JSON body.
            content: Sent as the body as it is; a text as UTF-8.
            params: Added to the query; a list is a name said several times.
            stream: Return when status and headers are there, with the body still on its way; use it with ``with``.
            start_timeout: Seconds it may wait while no worker is ready; default: the high end of a cold start here.
            timeout: Seconds in all, the body included; default: that and the execution timeout together.
            wake: Whether it may start a worker.

        Raises:
            ConfigurationError: something given cannot be sent as it is.
            UnsupportedError: it is a function deployment, or a WebSocket is asked for.
            NoWorkerReady: no worker was ready in time.
            DeadlineExceeded: it took longer than *timeout*.
            WorkerLost, ResultUnknown: it was sent, and no answer came.
            StreamInterrupted: the reply broke off.
        """
        what, websocket = asking(method, path, json=json, content=content, headers=headers, params=params)
        asked = CallArguments.checked(start_timeout, timeout, wake=wake)
        opening = open_request(self._calls, deployment, what, asked, websocket=websocket, stream=stream)
        reply = await opening
        return AsyncHTTPStream(reply) if stream else await whole(reply)

    def openai(self, deployment: AsyncDeployment | str, *, start_timeout: float | None = None) -> dict[str, Any]:
        """Keyword arguments of the official ``openai`` package: ``AsyncOpenAI(**client.openai("chat"))``.

        Its calls go to the deployment's own server, wake it, and wait for its first worker. What fails is an error of
        ``openai``'s; ours is the cause of its cause. The account's key never reaches that object.

        Args:
            start_timeout: Seconds a call may wait while no worker is ready; default: the high end of a cold start here.

        Raises:
            ConfigurationError: the package ``openai`` is not installed.
            UnsupportedError: it is a function deployment.
        """
        return openai.arguments(self._calls, deployment, start_timeout, is_async=True)


class BoundHTTPVerbs:
    """The same, bound to a deployment's handle."""

    _client: Client

    @overload
    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: Literal[False] = False,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> HTTPReply: ...

    @overload
    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: Literal[True],
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> HTTPStream: ...

    @overload
    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: bool,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> HTTPReply | HTTPStream: ...

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: bool = False,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> HTTPReply | HTTPStream:
        """As ``client.request``."""
        return self._client.request(
            self._handle(),
            method,
            path,
            json=json,
            content=content,
            headers=headers,
            params=params,
            stream=stream,
            start_timeout=start_timeout,
            timeout=timeout,
            wake=wake,
        )

    def openai(self, *, start_timeout: float | None = None) -> dict[str, Any]:
        """As ``client.openai``."""
        return self._client.openai(self._handle(), start_timeout=start_timeout)

    def _handle(self) -> Deployment:
        raise AssertionError("a handle says which")


class AsyncBoundHTTPVerbs:
    """The same, bound to a deployment's handle."""

    _client: AsyncClient

    @overload
    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: Literal[False] = False,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> HTTPReply: ...

    @overload
    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: Literal[True],
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> AsyncHTTPStream: ...

    @overload
    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: bool,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> HTTPReply | AsyncHTTPStream: ...

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        stream: bool = False,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> HTTPReply | AsyncHTTPStream:
        """As ``client.request``."""
        return await self._client.request(
            self._handle(),
            method,
            path,
            json=json,
            content=content,
            headers=headers,
            params=params,
            stream=stream,
            start_timeout=start_timeout,
            timeout=timeout,
            wake=wake,
        )

    def openai(self, *, start_timeout: float | None = None) -> dict[str, Any]:
        """As ``client.openai``."""
        return self._client.openai(self._handle(), start_timeout=start_timeout)

    def _handle(self) -> AsyncDeployment:
        raise AssertionError("a handle says which")
