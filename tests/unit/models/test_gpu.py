"""The GPU table, and how GPUs are asked for."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu.errors import ConfigurationError
from unigpu.models import DeploymentSpec, GPURequest
from unigpu.models._gpu_table import PROVIDERS, key, table
from unigpu.models.gpu import canonical, gpu, is_shared, matches, members, pools, spelling

ROWS = sorted(table().gpus)
NAMES = sorted([*table().gpus, *table().sets])


def request(text: str) -> GPURequest:
    return GPURequest.model_validate(text)


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("RTX 4090", "RTX 4090", 1),
        ("rtx4090", "RTX 4090", 1),
        ("rtx-4090", "RTX 4090", 1),
        (" NVIDIA GeForce RTX 4090 ", "RTX 4090", 1),
        ("RTX_4090", "RTX 4090", 1),
        ("NVIDIA_RTX_4090_24G", "RTX 4090", 1),
        ("RTX 4090 24GB", "RTX 4090", 1),
        ("L40S", "L40S", 1),
        ("l40s:4", "L40S", 4),
        ("H100 SXM:2", "H100 SXM", 2),
        ("any H100:2", "any H100", 2),
        ("any A100 80GB", "A100 80GB", 1),
        ("any H100 94GB", "H100 NVL", 1),
        ("V100 16GB FHHL", "V100 16GB FHHL", 1),
        ("H100 80GB", "H100 80GB", 1),
        ("H100 94 GB", "H100 NVL", 1),
        ("A100 80GB", "A100 80GB", 1),
        ("a100-80g", "A100 80GB", 1),
        ("A100 PCIe 80GB", "A100 80GB PCIe", 1),
        ("A100 SXM4 40GB", "A100 40GB SXM", 1),
        ("H200", "H200", 1),
        ("RTX 6000Ada", "RTX 6000 Ada", 1),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", 1),
        ("RTX 4080S", "RTX 4080 SUPER", 1),
        ("Tesla T4", "T4", 1),
        ("RTX PRO 6000", "RTX PRO 6000", 1),
    ],
)
def test_a_gpu_is_found_by_any_spelling_people_use(text: str, name: str, count: int) -> None:
    assert request(text) == GPURequest(name=name, count=count)


@pytest.mark.parametrize(
    ("text", "size", "count"), [("24GB", 24, 1), ("80 gb", 80, 1), ("48GiB:2", 48, 2), ("24g", 24, 1)]
)
def test_a_size_asks_for_at_least_that_much_memory(text: str, size: int, count: int) -> None:
    asked = request(text)
    assert (asked.name, asked.memory_gb, asked.count) == (None, size, count)
    found = members(asked)
    assert {one.name for one in found} == {row.name for row in table().gpus.values() if row.memory_gb >= size}
    assert [one.memory_gb for one in found] == sorted(one.memory_gb for one in found)


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("A100", ["A100 40GB PCIe", "A100 80GB SXM", "A100 80GB", "any A100"]),
        ("nvidia a100:2", ["A100 40GB PCIe", "A100 80GB SXM"]),
        ("A100 SXM", ["A100 40GB SXM", "A100 80GB SXM"]),
        ("H100", ["H100 SXM", "H100 PCIe", "H100 NVL", "H100 80GB", "any H100"]),
        ("H100:2", ["H100 SXM", "H100 PCIe", "H100 NVL"]),
        ("Tesla V100", ["V100 32GB", "V100 16GB", "any V100"]),
    ],
)
def test_an_ambiguous_name_lists_the_choices_and_each_choice_works(text: str, choices: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="quite different GPUs") as caught:
        request(text)
    listed = str(caught.value).split("say which: ")[1].replace('"', "").split(", ")
    assert set(choices) <= set(listed)
    for choice in listed:
        assert request(choice).name == choice


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("RTX 4900", "RTX 4090"),
        ("L4OS", "L40S"),
        ("4090", "RTX 4090"),
        ("4080 super", "RTX 4080 SUPER"),
        ("B20O", "B200"),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones(text: str, near: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no GPU of that name") as caught:
        request(text)
    assert f'"{near}"' in str(caught.value)
    assert f'"{text}"' not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", ":", "RTX 4090:0", "RTX 4090:17", "RTX 4090:-1", "RTX 4090 48GB", "H100 SXM 40GB", "0GB", "100000GB", "24"],
)
def test_what_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        request(text)


def test_more_memory_than_any_gpu_has_names_the_largest() -> None:
    with pytest.raises(ConfigurationError, match="B300 has the most, 262GB"):
        request("999GB")


def test_a_request_is_a_name_or_a_size_and_not_both() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        GPURequest(name="L40S", memory_gb=24)
    with pytest.raises(ConfigurationError, match="not both"):
        GPURequest()
    assert GPURequest(name="l40s").name == "L40S"


def test_a_spec_takes_one_text_a_list_or_requests_and_keeps_the_order_without_repetitions() -> None:
    def gpus(value: object) -> list[str]:
        return [str(one) for one in DeploymentSpec.model_validate({"name": "a", "gpu": value}).gpu or ()]

    assert gpus("l40s") == ["L40S"]
    assert gpus(["RTX 4090", "L40S:2", "rtx4090"]) == ["RTX 4090", "L40S:2"]
    assert gpus((GPURequest(name="L4"), "RTX 4090:1")) == ["L4", "RTX 4090"]
    assert gpus({"name": "l4"}) == ["L4"]
    assert DeploymentSpec(name="a", gpu=None).gpu is None
    with pytest.raises(ConfigurationError, match="gpu: the set of acceptable GPUs is empty"):
        gpus([])
    with pytest.raises(ConfigurationError, match=r"gpu\.1.*quite different"):
        gpus(["L40S", "A100"])


@pytest.mark.parametrize("name", NAMES)
def test_a_canonical_name_stands_for_itself(name: str) -> None:
    assert request(name).name == name
    assert request(name.lower().replace(" ", "-")).name == name
    assert str(request(f"{name}:3")) == f"{name}:3"
    assert request(str(request(f"{name}:3"))) == request(f"{name}:3")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_spelling_leads_back_to_its_gpu(provider: str) -> None:
    checked = 0
    for row in table().gpus.values():
        for text in row.spellings.get(provider, ()):
            checked += 1
            assert text in spelling(row.name, provider)
            found = canonical(provider, text, memory_gb=row.memory_gb)
            assert found is not None
            assert matches(row.name, found), "where the spelling is shared by several of one size, the set that has it"
            if not is_shared(provider, text):
                assert canonical(provider, text) == row.name
                assert request(text).name == row.name, "a user may paste what the platform's page says"
    for group in table().sets.values():
        for text in group.spellings.get(provider, ()):
            assert canonical(provider, text) == group.name
            assert text in spelling(group.name, provider)
    assert checked > 10


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_two_gpus_share_a_spelling_unless_that_is_declared(provider: str) -> None:
    owners: dict[str, list[str]] = defaultdict(list)
    for item in (*table().gpus.values(), *table().sets.values()):
        for text in item.spellings.get(provider, ()):
            owners[text].append(item.name)
    shared = {text for text, names in owners.items() if len(names) > 1}
    assert shared == table().shared[provider]


def test_no_two_names_or_aliases_mean_the_same_to_a_user() -> None:
    owners: dict[str, set[str]] = defaultdict(set)
    for item in (*table().gpus.values(), *table().sets.values()):
        for text in (item.name, *item.aliases):
            owners[key(text)].add(item.name)
    assert {text: names for text, names in owners.items() if len(names) > 1} == {}


def test_each_set_is_of_known_gpus_and_covers_what_its_name_says() -> None:
    for group in table().sets.values():
        assert len(group.members) > 1
        for one in group.members:
            assert matches(one.name, group.name)
            assert set(one.spellings.get("runpod", ())) <= set(spelling(group.name, "runpod"))
        if group.ambiguous is not None:
            with pytest.raises(ConfigurationError, match="quite different"):
                request(group.ambiguous)


def test_vast_names_are_told_apart_by_memory_and_read_with_underscores() -> None:
    assert canonical("vast", "A100_SXM4") is None
    assert canonical("vast", "A100 SXM4", memory_gb=79.6) == "A100 80GB SXM"
    assert canonical("vast", "A100 SXM4", memory_gb=39.4) == "A100 40GB SXM"
    assert canonical("vast", "Tesla V100", memory_gb=32) == "V100 32GB"
    assert canonical("vast", "RTX_4090") == "RTX 4090"
    assert is_shared("vast", "A100 PCIE")


def test_unknown_spellings_and_providers_are_no_gpu() -> None:
    assert canonical("runpod", "NVIDIA GeForce RTX 9999") is None
    assert canonical("elsewhere", "RTX 4090") is None
    assert spelling("RTX 4090", "elsewhere") == ()
    assert spelling("T4", "yotta") == ()
    assert gpu("RTX 9999") is None
    assert not matches("RTX 9999", "24GB")


def test_runpod_pools_hold_the_gpu_that_was_asked_for() -> None:
    assert pools("RTX 4090") == ("ADA_24",)
    assert pools("A100 80GB") == ("AMPERE_80",)
    assert pools("any H100") == ("ADA_80_PRO",)
    assert pools("T4") == ()
    for row in table().gpus.values():
        assert row.pool is None or row.spellings.get("runpod"), "a pool holds only what RunPod has"


def test_matching_is_by_name_set_and_memory() -> None:
    assert matches("H100 PCIe", "any H100")
    assert matches("H100 PCIe", "H100 80GB")
    assert not matches("H100 NVL", "H100 80GB")
    assert matches("H100 80GB", "any H100")
    assert not matches("any H100", "H100 80GB")
    assert matches("L40S", "48GB")
    assert not matches("L4", "48GB")


def test_the_table_says_what_a_gpu_is() -> None:
    found = gpu("RTX 4090")
    assert found is not None
    assert (found.memory_gb, found.form, found.architecture, found.compute) == (24, "PCIe", "Ada Lovelace", "8.9")
    for row in table().gpus.values():
        assert 1 <= row.memory_gb <= 512
        assert row.form
        assert (row.compute is None) == (row.architecture.startswith(("CDNA", "RDNA", "GCN", "Neuron")))


@given(
    st.one_of(st.text(max_size=40), st.from_regex(r"[A-Za-z ]{0,8}[0-9]{0,4} ?[GBgb]{0,2}:?[0-9]{0,3}", fullmatch=True))
)
def test_any_text_is_a_request_or_a_configuration_error(text: str) -> None:
    try:
        asked = request(text)
    except ConfigurationError:
        return
    assert request(str(asked)) == asked
    assert members(asked)


@given(st.sampled_from(ROWS), st.integers(1, 262))
def test_a_size_is_matched_exactly_by_those_that_have_it(name: str, size: int) -> None:
    row = gpu(name)
    assert row is not None
    assert matches(name, f"{size}GB") == (row.memory_gb >= size)


def test_the_page_of_gpus_is_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "gpus.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(): cells for line in page.splitlines() if len(cells := line.split("|")) > 3}
    for row in table().gpus.values():
        cells = rows[row.name]
        assert [cells[2].strip(), cells[3].strip(), cells[4].strip()] == [
            str(row.memory_gb),
            row.form,
            row.compute or "–",
        ]
        for text in (*sum(row.spellings.values(), ()), row.pool or ""):
            assert text in "|".join(cells)
    for group in table().sets.values():
        assert rows[group.name][2].strip() == ", ".join(one.name for one in group.members)
