"""1,000 one-second POSTs at once, against a server of our own on loopback, in a process of its own.

    python benchmarks/fan_out.py [--calls 1000] [--seconds 1] [--httpx-cap 40]

Prints how many completed and in what time: our `Io`, cold (no connection open) and warm, then plain httpx with its
limit raised to the same number, stopped after the cap.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time

SERVER = """
import asyncio, re, sys
REPLY = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: 11\\r\\n\\r\\n{\\"ok\\":true}"
class Answer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.data = transport, b""
    def data_received(self, data):
        self.data += data
        head, found, body = self.data.partition(b"\\r\\n\\r\\n")
        if found:
            length = re.search(rb"content-length: *([0-9]+)", head, re.I)
            if len(body) >= int(length.group(1) if length else 0):
                self.data = b""
                asyncio.get_running_loop().call_later(float(sys.argv[1]), self.answer)
    def answer(self):
        if not self.transport.is_closing():
            self.transport.write(REPLY)
async def main():
    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def show(name: str, done: int, calls: int, seconds: float) -> None:
    print(f"{name:<28} {done:>5} of {calls} completed in {seconds:6.2f} s")


async def ours(url: str, calls: int) -> None:
    from unigpu._io.contract import CallClass, Request
    from unigpu._io.http.client import AsyncHttpIo, HttpConfig
    from unigpu._io.resilience.rate_limit import LimitedIo
    from unigpu._io.resilience.retry import RetryingIo

    base = AsyncHttpIo(HttpConfig(limit=calls, private_workers=True))
    io = RetryingIo(LimitedIo(base, {}))

    async def one(number: int) -> int:
        request = Request(
            method="POST",
            url=url,
            operation="bench.call",
            json={"input": {"n": number}},
            role="jobs",
            call=CallClass.USER_DECIDES,
            deadline=io.now() + 60,
        )
        return (await io.send(request)).status

    for name in ("unigpu, cold", "unigpu, warm", "unigpu, warm again"):
        start = time.perf_counter()
        answers = await asyncio.gather(*(one(number) for number in range(calls)))
        show(name, answers.count(200), calls, time.perf_counter() - start)
    await base.aclose()


async def plain(url: str, calls: int, cap: float) -> None:
    import httpx

    limits = httpx.Limits(max_connections=calls, max_keepalive_connections=calls)
    async with httpx.AsyncClient(limits=limits, timeout=120, trust_env=False) as client:
        start, done = time.perf_counter(), 0

        async def one(number: int) -> None:
            nonlocal done
            await client.post(url, json={"input": {"n": number}})
            done += 1

        try:
            async with asyncio.timeout(cap):
                await asyncio.gather(*(one(number) for number in range(calls)))
        except TimeoutError:
            print(f"(httpx was stopped after {cap:g} s)")
        show("httpx, same limit, cold", done, calls, time.perf_counter() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long the server takes for each call")
    parser.add_argument("--httpx-cap", type=float, default=40.0, help="0: leave httpx out")
    options = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(options.seconds)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{json.loads(server.stdout.readline())}/call"
        asyncio.run(ours(url, options.calls))
        if options.httpx_cap > 0:
            asyncio.run(plain(url, options.calls, options.httpx_cap))
    finally:
        server.kill()
        server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
