"""The old generation's task calls, which ``yottactl`` makes: the same tasks, under other names.

``/openapi/v1/skywalker/tasks``; the endpoint is named in the header ``X-Endpoint-ID``. States are texts, as in every
published sample, although the table there has numbers.
(https://docs.yottalabs.ai/api-and-sdk/api-guides/serverless/queue-based-elastic-execution)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from unigpu.emulator.contract import JSON
from unigpu.emulator.engine import Engine, EngineDeployment, EngineJob

from . import wire
from .tasks import Tasks, error_of, worker_url

STATES: Final = ("PROCESSING", "DELIVERED", "SUCCESS", "FAILED")
"""By their numbers."""
_FIELDS: Final = {
    "userTaskId": "taskId",
    "workerPort": "workerPort",
    "processUri": "processUri",
    "notifyUrl": "webhook",
    "notifyAuthKey": "webhookAuthKey",
    "taskData": "input",
    "header": "headers",
}


def submitted(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a create, as v2 has it.

    Raises:
        Problem: it has no id.
    """
    if not body.get("userTaskId"):
        raise wire.YottaProblem(wire.TASK_FIELD, "userTaskId is required")
    if body.get("taskData") in (None, "", [], {}):
        raise wire.YottaProblem(wire.TASK_FIELD, "taskData is required")
    return {new: body[old] for old, new in _FIELDS.items() if body.get(old) is not None}


def shown(
    engine: Engine, tasks: Tasks, one: EngineDeployment, job: EngineJob, *, whole: bool = True
) -> dict[str, JSON]:
    delivery, extra = tasks.delivery(one, job), job.extra
    at = delivery.at
    row: dict[str, JSON] = {
        "userTaskId": job.id,
        "workerUrl": worker_url(job),
        "notifyUrl": extra["webhook"],
        "createdAt": wire.spaced(engine.wall(job.submitted_at)),
        "updatedAt": wire.spaced(engine.wall(job.finished_at or job.started_at or job.submitted_at)),
        "status": tasks.status(one, job),
        "failedReason": error_of(job),
        "resultSendStatus": delivery.status,
        "resultSendCount": delivery.attempts,
        "nextResultSendTime": None if delivery.next_at is None else wire.spaced(engine.wall(delivery.next_at)),
        "notifySendCount": delivery.attempts,
        "lastNotifiedAt": None if at is None else wire.spaced(engine.wall(at)),
    }
    if whole:
        row |= {"taskData": extra["input"], "header": extra["headers"], "taskResult": job.output}
    return row


def listed(rows: list[JSON], page: int, size: int) -> dict[str, JSON]:
    found = wire.paged(rows, page, size)
    return {
        "items": found["items"],
        "pagination": {"page": page, "pageSize": size, "totalCount": found["total"], "totalPages": found["pages"]},
    }
