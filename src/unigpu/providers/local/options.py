"""What only the local provider has: the driver's own settings, and a deployment's."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BeforeValidator, Field, SecretStr

from unigpu.driver import InputModel, duration

IDLE_EXIT: Final = 3600.0


class Options(InputModel):
    """``driver_options["local"]``.

    Attributes:
        base_url: A supervisor or mock that runs already; nothing is started then.
        token: What it asks for.
        idle_exit: Seconds without a call or a job after which the supervisor ends (deployments stay, without workers).
        python: The interpreter that runs handlers; default: this program's own.
    """

    base_url: str | None = None
    token: SecretStr | None = None
    idle_exit: Annotated[float, BeforeValidator(duration), Field(gt=0)] = IDLE_EXIT
    python: Annotated[str, Field(min_length=1)] | None = None


class SpecOptions(InputModel):
    """``provider_options["local"]``.

    Attributes:
        route: Where ``invoke`` posts the bare input, for a command whose server is not our worker.
    """

    route: Annotated[str, Field(pattern=r"^/[^\s?#]*$")] | None = None
