"""A worker on RunPod's own package, as its documentation shows one. MODE=stream: a generator."""

import asyncio
import os

import runpod


async def handler(job):
    given = job["input"]
    if "boom" in given:
        raise ValueError(given["boom"])
    if "refuse" in given:
        return {"error": given["refuse"]}
    if "progress" in given:
        runpod.serverless.progress_update(job, {"at": given["progress"]})
    await asyncio.sleep(given.get("sleep", 0))
    return {"echo": given}


async def stream(job):
    for number in range(job["input"]["count"]):
        yield {"number": number}
        await asyncio.sleep(0)


if __name__ == "__main__":
    streams = os.environ.get("MODE") == "stream"
    runpod.serverless.start({"handler": stream if streams else handler, "return_aggregate_stream": True})
