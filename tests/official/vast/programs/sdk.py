"""Vast's synchronous client, unmodified: everything that it can make, show, change and delete here."""

import json
import sys

from vastai import VastAI

base, key = sys.argv[1], sys.argv[2]
vast = VastAI(api_key=key, server_url=base)
out = {}

out["user"] = vast.show_user()["id"]
template = vast.create_template(
    name="sdk", image="registry.test/app", image_tag="1", env="-e A=1 -p 3000:3000", disk_space=12
)
template = template.get("template", template)
out["template"] = [template["name"], len(template["hash_id"])]
out["templates"] = [
    one["id"] == template["id"] for one in vast.search_templates({"hash_id": {"eq": template["hash_id"]}})
]
made = vast.create_endpoint(
    endpoint_name="sdk", min_load=0, cold_workers=0, max_workers=2, target_util=0.9, cold_mult=1, inactivity_timeout=60
)
endpoint = made["result"]
group = vast.create_workergroup(
    endpoint_id=endpoint, template_hash=template["hash_id"], search_params="gpu_name=RTX_4090 dph_total<=0.01"
)["id"]
out["endpoints"] = [
    [one["endpoint_name"], one["max_workers"]] for one in vast.show_endpoints() if one["id"] == endpoint
]
(row,) = [one for one in vast.show_workergroups() if one["id"] == group]
out["workergroup"] = [row["endpoint_name"], row["search_query"]["dph_total"], row["search_query"]["rentable"]]
out["scaled"] = vast.update_endpoint(endpoint, max_workers=5, min_load=0.0)["success"]
out["max_workers"] = [one["max_workers"] for one in vast.show_endpoints() if one["id"] == endpoint]
out["workers"] = vast.get_endpoint_workers(endpoint)
out["logs"] = sorted(vast.get_endpt_logs(endpoint))
out["group_logs"] = sorted(vast.get_wrkgrp_logs(group))
out["updated"] = vast.update_workers(group)
offers = vast.search_offers(query="gpu_name=RTX_4090 num_gpus=1 dph_total<=0.5", order="dph_total")
out["offers"] = [[one["gpu_name"], one["dph_total"] < 0.5] for one in offers][:2]
contract = vast.create_instance(offers[0]["id"], image="registry.test/app:1", disk=10, label="sdk", env={"A": "1"})[
    "new_contract"
]
out["instance"] = [
    vast.show_instance(contract)["label"],
    [one["label"] for one in vast.show_instances() if one["id"] == contract],
]
out["labelled"] = vast.label_instance(contract, "renamed")["success"]
out["stopped"] = vast.stop_instance(contract)["success"]
out["destroyed"] = vast.destroy_instance(contract)["success"]
out["gone"] = vast.show_instance(contract)
out["deleted"] = [
    vast.delete_workergroup(group)["success"],
    vast.delete_endpoint(endpoint)["success"],
    vast.delete_template(template_id=template["id"])["success"],
]
out["left"] = [one["id"] for one in vast.show_endpoints() if one["id"] == endpoint]
print(json.dumps(out))
