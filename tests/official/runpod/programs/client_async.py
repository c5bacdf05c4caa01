"""RunPod's own client, asyncio and unmodified: what it gives is printed as JSON. argv: a key, an endpoint, a stream."""

import asyncio
import json
import sys

import runpod
from runpod import AsyncioEndpoint, http_client

key, plain, streaming = sys.argv[1:]
runpod.api_key = key


async def started(job):
    while await job.status() == "IN_QUEUE":
        await asyncio.sleep(0.1)


async def main():
    found = {}
    async with http_client.AsyncClientSession() as session:
        endpoint = AsyncioEndpoint(plain, session)
        job = await endpoint.run({"text": "a"})
        found["status"] = await job.status()
        found["run"] = await job.output(timeout=40)
        found["health"] = await endpoint.health()

        job = await endpoint.run({"sleep": 30})
        await started(job)
        found["cancel"] = (await job.cancel())["status"]
        found["cancelled"] = await job.status()

        busy = await endpoint.run({"sleep": 2})
        await started(busy)
        for _ in range(3):
            await endpoint.run({"text": "queued"})
        found["purge"] = await endpoint.purge_queue()
        found["busy"] = await busy.output(timeout=40)

        failed = await endpoint.run({"boom": "no such thing"})
        found["failed"] = [await failed.output(timeout=40), await failed.status()]
        # Without a timeout it gives up at once, where the synchronous one returns.
        slow = await endpoint.run({"sleep": 1})
        try:
            found["no_wait"] = await slow.output()
        except TimeoutError as error:
            found["no_wait"] = str(error)

        flow = await AsyncioEndpoint(streaming, session).run({"count": 5})
        await started(flow)
        found["stream"] = [chunk async for chunk in flow.stream()]
        found["many"] = [
            await job.output(timeout=40) for job in await asyncio.gather(*(endpoint.run({"n": n}) for n in range(3)))
        ]
    print(json.dumps(found))


asyncio.run(main())
