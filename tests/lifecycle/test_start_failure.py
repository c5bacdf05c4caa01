"""A call for which no worker can start says why, with the worker's last words, and that nothing ran."""

from __future__ import annotations

import pytest

from unigpu._lifecycle.calls.jobs import result_of
from unigpu.errors import JobFailed, WorkerFailed
from unigpu.models import JobError, JobInfo, JobStatus
from unigpu.models.job import StartFailure


def test_no_worker_can_start() -> None:
    failure = StartFailure(reason="crash_loop", message="exited with code 3", logs=("no weights.bin",))
    job = JobInfo(id="j", status=JobStatus.FAILED, start_failure=failure)

    with pytest.raises(WorkerFailed) as told:
        result_of(job, total=1.0, provider="local", deployment="hello")

    error = told.value
    assert (error.reason, error.logs, error.maybe_executed) == ("crash_loop", ("no weights.bin",), False)
    assert "no weights.bin" in str(error)
    assert error.next_step


def test_a_handler_that_raises_something_of_that_name_failed_by_itself() -> None:
    job = JobInfo(id="j", status=JobStatus.FAILED, error=JobError(type="WorkerFailed", message="mine"))

    with pytest.raises(JobFailed) as told:
        result_of(job, total=1.0, provider="local", deployment="hello")

    assert told.value.error_message == "mine"
