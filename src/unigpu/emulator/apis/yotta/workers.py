"""An endpoint's workers, where each was placed, and their logs."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from unigpu.emulator.contract import JSON, HttpCall, worker_number
from unigpu.emulator.engine import Engine, EngineDeployment, EngineWorker, LogRecord
from unigpu.models.deployment import WorkerState

from . import wire
from .quirks import VRAM_GB, Quirks
from .wire import YottaProblem

_MOST_LINES: Final = 1000
_STATES: Final = {
    WorkerState.PLACING: "INITIALIZING",
    WorkerState.STARTING: "INITIALIZING",
    WorkerState.DRAINING: "TERMINATING",
    WorkerState.FAILED: "FAILED",
    WorkerState.EXITED: "TERMINATED",
    WorkerState.STOPPED: "TERMINATED",
}


class Workers:
    """The workers of the endpoints."""

    def __init__(self, engine: Engine, quirks: Quirks) -> None:
        self._engine = engine
        self._quirks = quirks

    def all(self, one: EngineDeployment, call: HttpCall, now: float) -> list[JSON]:
        """Those there are and those that ended lately: these stay listed."""
        wanted = wire.values_of(call, "statusList")
        if "INITIALIZE" in wanted:
            wanted |= {"INITIALIZING"}
        workers = self._engine.workers(one.id)
        return [self._shown(one, each, now) for each in workers if not wanted or self._state(each) in wanted]

    def place(self, one: EngineDeployment, worker: EngineWorker) -> dict[str, JSON]:
        """The region and GPU that a worker got: any of the acceptable ones, by its number."""
        places: list[dict[str, JSON]] = one.terms.data["places"]
        return places[worker_number(worker.id) % len(places)]

    def logs(self, one: EngineDeployment, id: str, call: HttpCall) -> dict[str, JSON]:
        worker = next((each for each in self._engine.workers(one.id) if number_of(each) == id), None)
        if worker is None:
            raise YottaProblem(wire.NO_RECORD, "record not exist")
        query = call.query
        size = wire.whole(query.get("pageSize", 100), "pageSize", low=1, high=_MOST_LINES)
        backward = query.get("direction", "Forward").lower() == "backward"
        rows = [line for line in worker.log if _within(line, query.get("startTime"), query.get("endTime"))]
        if query.get("keyword"):
            rows = [line for line in rows if query["keyword"] in line.text]
        if backward:
            rows.reverse()
        if query.get("searchAfterOffset"):
            after = wire.whole(query["searchAfterOffset"], "searchAfterOffset")
            rows = [line for line in rows if (line.n < after if backward else line.n > after)]
        page = rows[:size]
        more = len(rows) > size
        return {
            "logs": [{"timestamp": wire.iso(line.time), "log": line.text, "offset": line.n} for line in page],
            "hasMore": more,
            "nextSearchAfterTime": wire.iso(page[-1].time) if more else "",
            "nextSearchAfterOffset": str(page[-1].n) if more else "",
        }

    def _state(self, worker: EngineWorker) -> str:
        return "RUNNING" if worker.state.is_ready else _STATES.get(worker.state, "INITIALIZING")

    def _shown(self, one: EngineDeployment, worker: EngineWorker, now: float) -> dict[str, JSON]:
        place = self.place(one, worker)
        code = str(place["gpuType"])
        seconds = self._engine.billed_seconds(worker, now)
        state = self._state(worker)
        since = worker.ready_at
        return {
            "id": number_of(worker),
            "workerId": number_of(worker),
            "status": state.lower() if self._quirks.lower_case_workers else state,
            "createdAt": wire.millis(self._engine.wall(worker.created_at)),
            "region": place["region"],
            "gpuType": code,
            "gpuDisplayName": display(code),
            "gpuCount": place["gpuCount"],
            "singleCardVramInGb": VRAM_GB.get(code, 0),
            "singleCardVcpu": 8,
            "singleCardRamInGb": 64,
            "uptime": 0 if since is None else int((worker.ended_at or now) - since),
            "cost": round(seconds / 3600 * (one.terms.price_per_hour or 0.0), 6),
        }


def number_of(worker: EngineWorker) -> str:
    """A worker's id on this platform."""
    return str(worker_number(worker.id))


def display(code: str) -> str:
    """As the console writes a GPU: ``NVIDIA_RTX_4090_24G`` is "RTX 4090"."""
    return " ".join(code.split("_")[1:-1])


def _within(line: LogRecord, start: str | None, end: str | None) -> bool:
    after = start is None or line.time >= _moment(start)
    return after and (end is None or line.time <= _moment(end))


def _moment(text: str) -> float:
    """Epoch seconds of milliseconds or ISO 8601."""
    if text.isdecimal():
        return int(text) / 1000
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise YottaProblem(wire.BAD_REQUEST, "a time is milliseconds or ISO 8601") from None
