"""What a worker's process sees: what was declared, what its platform tells each one, and its ports."""

from __future__ import annotations

from unigpu.emulator.contract import Launch, worker_number
from unigpu.emulator.processes.worker_command import environment

PLATFORM = {"ID": "{number}", "NAME": "{worker}", "WAY_{port}": "{port}", "BEHIND": "{second}", "A": "the platform's"}


def test_variables_by_worker_are_filled_in_and_win() -> None:
    launch = Launch(argv=("serve",), env={"A": "declared", "B": "{port}"}, per_worker=PLATFORM)
    env = environment(launch, port=4321, own={"PATH": "/bin"}, worker_id="w-1ff")
    assert (env["ID"], env["NAME"], env["WAY_4321"]) == (str(0x1FF), "w-1ff", "4321")
    assert (env["A"], env["B"]) == ("the platform's", "{port}")  # what was declared is nobody's pattern
    assert env["BEHIND"].isdigit()
    assert env["BEHIND"] != "4321"
    assert env["PORT"] == "4321"


def test_where_vendors_programs_are_is_inherited_and_nothing_else_of_ours() -> None:
    own = {"UNIGPU_PYWORKER_PYTHON": "/p/python", "UNIGPU_STATE": "x", "VAST_API_KEY": "secret"}
    env = environment(Launch(argv=("serve",)), port=1, own=own)
    assert env["UNIGPU_PYWORKER_PYTHON"] == "/p/python"
    assert "VAST_API_KEY" not in env
    assert "UNIGPU_STATE" not in env


def test_a_worker_s_number_is_its_id() -> None:
    assert worker_number("w-a0") == 160
    assert worker_number("") == 0
