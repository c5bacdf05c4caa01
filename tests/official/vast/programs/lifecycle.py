"""Vast's serverless client, unmodified: an endpoint made, called once and deleted by it alone."""

import asyncio
import json
import sys

from vastai import CoroutineServerless
from vastai.data.endpoint import EndpointConfig
from vastai.data.workergroup import WorkergroupConfig

base, key, template = sys.argv[1:4]
CoroutineServerless.SSL_CERT_URL = f"{base}/static/jvastai_root.cer"


async def main():
    out = {}
    async with CoroutineServerless(
        api_key=key, webserver_url=base, autoscaler_url=base, max_poll_interval=1.0
    ) as client:
        config = EndpointConfig(
            endpoint_name="made-by-theirs",
            min_load=0,
            cold_workers=0,
            max_workers=1,
            cold_mult=1,
            inactivity_timeout=60,
        )
        managed = await client.create_endpoint(config)
        group = await client.create_workergroup(
            WorkergroupConfig(endpoint_id=managed.id, template_hash=template, search_params="dph_total<=1", gpu_ram=24)
        )
        out["found"] = (await client.find_workergroup_for_endpoint(managed.id)) == group
        endpoint = await client.get_endpoint("made-by-theirs")
        answer = await endpoint.request("/invoke", {"input": {"n": 1}}, timeout=50)
        out["answer"] = [answer["ok"], answer["response"]]
        out["update"] = await client.update_workers(group)
        await client.delete_workergroup(group)
        await client.delete_endpoint(managed.id)
        out["left"] = [one.name for one in await client.get_endpoints() if one.name == "made-by-theirs"]
    print(json.dumps(out))


asyncio.run(main())
