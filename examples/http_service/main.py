"""An http service: your own server behind a deployment. The first request starts a worker, and is held meanwhile."""

from __future__ import annotations

import sys
from pathlib import Path

import unigpu

SERVER = Path(__file__).with_name("server.py")


def main() -> None:
    with (
        unigpu.Client("local") as client,
        client.deploy(name="finder", interface="http", command=[sys.executable, str(SERVER)], workers=(0, 1)) as finder,
        finder.request("GET", "/find", params={"word": "patent"}, stream=True) as reply,
    ):
        print(reply.status, reply.headers["content-type"])
        for event in reply.events():
            print(event.data)


if __name__ == "__main__":
    main()
