"""The task calls of the older official client (``yottactl``), unmodified. Arguments: base URL, key, endpoint, port."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from yotta.__version__ import __version__
from yotta.skywalker import SkywalkerTaskApi

BASE, KEY, ENDPOINT, PORT = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])


def data(reply: Any) -> Any:
    assert reply["code"] == 10000, reply
    return reply["data"]


def main() -> None:
    tasks = SkywalkerTaskApi(KEY, base_url=BASE, timeout=10)
    created = tasks.create_task(
        endpoint_id=ENDPOINT,
        user_task_id="old_1",
        worker_port=PORT,
        process_uri="/run",
        task_data={"n": 5},
        header={"X-Trace": "1"},
    )
    assert data(created) == {"userTaskId": "old_1"}
    end = time.monotonic() + 60
    found = data(tasks.get_task(endpoint_id=ENDPOINT, task_id="old_1"))
    while found["status"] not in ("SUCCESS", "FAILED") and time.monotonic() < end:
        time.sleep(0.05)
        found = data(tasks.get_task(endpoint_id=ENDPOINT, task_id="old_1"))
    listed = data(tasks.list_tasks(endpoint_id=ENDPOINT, status=2))
    count = data(tasks.get_processing_count(endpoint_id=ENDPOINT))
    none = tasks.get_task(endpoint_id=ENDPOINT, task_id="none")
    print(json.dumps({"version": __version__, "task": found, "listed": listed, "count": count, "none": none}))


main()
