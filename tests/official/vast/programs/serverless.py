"""Vast's serverless client, unmodified: calls of an endpoint that somebody else, or this program, has made."""

import asyncio
import json
import sys

from vastai import CoroutineServerless

base, key, name = sys.argv[1:4]
calls = json.loads(sys.argv[4])  # [[payload, stream], …]
route = sys.argv[5] if len(sys.argv) > 5 else "/invoke"
CoroutineServerless.SSL_CERT_URL = f"{base}/static/jvastai_root.cer"


async def collect(answer):
    response = answer["response"]
    if hasattr(response, "__aiter__"):
        return [one async for one in response]
    return response


async def main():
    out = {}
    async with CoroutineServerless(
        api_key=key, webserver_url=base, autoscaler_url=base, max_poll_interval=1.0
    ) as client:
        endpoint = await client.get_endpoint(name)
        out["endpoint"] = endpoint.name
        out["answers"] = []
        for payload, stream in calls:
            answer = await endpoint.request(route, payload, cost=100, stream=stream, timeout=50, retry=False)
            out["answers"].append([answer["ok"], await collect(answer)])
            out["url"] = answer["url"]
        out["workers"] = [[one.status, one.measured_perf > 0] for one in await client.get_endpoint_workers(endpoint)]
    print(json.dumps(out))


asyncio.run(main())
