"""The two clients and their handles. One source of behaviour, two thin shells."""

from __future__ import annotations

from unigpu._io.lines import ServerSentEvent

from .async_client import AsyncClient
from .async_handles import AsyncDeployment, AsyncJob, AsyncStream
from .handle_state import Deployments
from .http.request import HTTPReply
from .http.streams import AsyncHTTPStream, HTTPStream
from .map.results import AsyncResults, Results
from .sync_client import Client
from .sync_handles import Deployment, Job, Stream

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
