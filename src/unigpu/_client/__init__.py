"""The two clients and their handles. One source of behaviour, two thin shells."""

from __future__ import annotations

from unigpu._io.lines import ServerSentEvent

from ._async import AsyncClient
from ._batch import AsyncResults, Results
from ._handles import Deployment, Job, Stream
from ._handles_async import AsyncDeployment, AsyncJob, AsyncStream
from ._http_streams import AsyncHTTPStream, HTTPStream
from ._request import HTTPReply
from ._sync import Client
from ._view import Deployments

__all__ = [
    "AsyncClient",
    "AsyncDeployment",
    "AsyncHTTPStream",
    "AsyncJob",
    "AsyncResults",
    "AsyncStream",
    "Client",
    "Deployment",
    "Deployments",
    "HTTPReply",
    "HTTPStream",
    "Job",
    "Results",
    "ServerSentEvent",
    "Stream",
]
