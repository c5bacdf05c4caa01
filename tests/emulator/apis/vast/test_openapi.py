"""Every reply is held to Vast's own file; a deviation on purpose is listed by name with its source."""

from __future__ import annotations

import pytest
from openapi import OpenAPI
from vast_cloud import DEVIATIONS, Vast


def test_a_tour_of_all_routes_answers_as_the_official_file_says(vast: Vast) -> None:
    vast.spec = OpenAPI.load("vast.openapi.yaml")
    endpoint = vast.deployed(min_load=1)
    vast.endpoint("other")
    vast.advance(5.0)
    vast.json("GET", "/api/v0/endptjobs/")
    vast.json("PUT", f"/api/v0/endptjobs/{endpoint}/", {"max_workers": 3})
    (group,) = vast.json("GET", "/api/v0/workergroups/")["results"]
    vast.json("PUT", f"/api/v0/workergroups/{group['id']}/", {"endpoint_id": endpoint})
    vast.json("GET", "/api/v0/template/")
    vast.routed()
    vast.workers(endpoint)
    vast.json("POST", "/get_workergroup_workers/", {"id": group["id"]})
    vast.json("POST", "/get_endpoint_logs/", {"id": endpoint})
    vast.json("POST", "/api/v0/bundles/", {"num_gpus": {"eq": 1}})
    contract = vast.json("PUT", "/api/v0/asks/7100001/", {"image": "x", "env": {"-p 80:80": "1"}})["new_contract"]
    vast.advance(5.0)
    vast.json("GET", f"/api/v0/instances/{contract}/")
    vast.json("GET", "/api/v1/instances/")
    vast.json("PUT", f"/api/v0/instances/{contract}/", {"state": "stopped"})
    vast.json("PUT", f"/api/v0/instances/reboot/{contract}/", {})
    vast.json("PUT", f"/api/v0/instances/request_logs/{contract}/", {})
    vast.json("DELETE", f"/api/v0/instances/{contract}/", {})
    vast.json("GET", "/api/v0/users/current/")
    vast.json("DELETE", f"/api/v0/workergroups/{group['id']}/")
    vast.json("DELETE", f"/api/v0/endptjobs/{endpoint}/")
    for method, path in (("GET", "/api/v0/endptjobs/"), ("PUT", "/api/v0/asks/1/"), ("POST", "/route/")):
        vast.call(method, path, {"image": "x", "endpoint": "none"}, key="wrong")
    assert vast.checked >= 25


@pytest.mark.parametrize("route", sorted(DEVIATIONS))
def test_each_known_deviation_has_its_source(route: str) -> None:
    for place, why in DEVIATIONS[route].items():
        assert len(why) > 8, (route, place)


def test_no_deviation_is_listed_for_a_route_that_the_file_does_not_have() -> None:
    spec = OpenAPI.load("vast.openapi.yaml")
    for route in DEVIATIONS:
        method, _, path = route.partition(" ")
        assert path in spec.document["paths"], route
        assert method.lower() in spec.document["paths"][path], route
