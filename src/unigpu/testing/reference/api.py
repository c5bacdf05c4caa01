"""The reference platform's API: its address, its key, and what its errors mean."""

from __future__ import annotations

from dataclasses import dataclass

from unigpu.driver import API, DeploymentInfo, Meaning, Tokens
from unigpu.errors import JobExpired, NoCapacityError, NotFoundError, UniGPUError

PROVIDER = "reference"


@dataclass(frozen=True, kw_only=True)
class ReferenceAPI(API):
    """It keeps no connection: that is the `Io`'s."""

    provider = PROVIDER
    pages = Tokens()  # each page names the next one
    # Which status means "no such GPU is free", a platform's manual must say.
    meanings = (Meaning((409,), words=("no_capacity",), kind=NoCapacityError),)

    def path_of(self, info: DeploymentInfo) -> str:
        """As `API.path_of`."""
        return f"/endpoints/{info.id}"

    def absent(self, info: DeploymentInfo, error: NotFoundError) -> UniGPUError:
        """As `API.absent`: the endpoint is gone, or it is there and does not know the job."""
        if "job_" in (error.body or ""):
            return JobExpired(error.message, provider=PROVIDER, operation=error.operation, deployment=info.name)
        return super().absent(info, error)
