"""Cards: read through stand-ins for hl-smi and nvidia-smi, used by real processes, refused, waited for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from fake_cards import FakeCards
from serving import fake_vllm, simulated

from tautools.errors import ParamsError, ServerError
from tautools.params.models import SiteParams
from tautools.servers import Registry, launch
from tautools.servers.accelerators.assignment import (
    RELEASE_TIMEOUT_S,
    allowed_cards,
    assign_cards,
    cards_needed,
    require_cards,
    stale_processes,
    stop_stale,
    wait_released,
)
from tautools.servers.accelerators.probe import read_cards
from tautools.shell import process_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOWHERE = Path("/nowhere")


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCards]:
    """Put a node's cards on PATH."""
    for variable in ("CUDA_VISIBLE_DEVICES", "HABANA_VISIBLE_MODULES", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS"):
        monkeypatch.delenv(variable, raising=False)

    def make(device: str, used: list[int | list[int]]) -> FakeCards:
        cards = FakeCards(tmp_path / "bin", device, used)
        monkeypatch.setenv("PATH", cards.path)
        return cards

    return make


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours, in the place of one that a crashed notebook left behind."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_gaudi_cards_carry_the_module_ids_of_this_node(node: Any) -> None:
    node("gaudi", [768, 768, 40000])

    cards = read_cards(proc=NOWHERE)

    assert [(card.index, card.module, card.used_mib, card.total_mib) for card in cards] == [
        (0, 2, 768, 98304),
        (1, 6, 768, 98304),
        (2, 3, 40000, 98304),
    ]
    assert [card.idle for card in cards] == [True, True, False]
    assert cards[2].why_busy == "40000 of 98304 MiB used, by a process that this user cannot see"


@pytest.mark.parametrize(("used", "idle"), [(768, True), (1536, True), (1537, False)])
def test_a_gaudi_card_is_free_up_to_twice_the_idle_memory(node: Any, used: int, idle: bool) -> None:
    node("gaudi", [used])

    assert read_cards(proc=NOWHERE)[0].idle is idle


@pytest.mark.parametrize("device", ["gaudi", "cuda"])
def test_the_holder_of_a_card_is_named_with_pid_age_and_command(
    node: Any, device: str, sleeper: subprocess.Popen[bytes]
) -> None:
    node(device, [0, 0]).hold(1, sleeper.pid)

    free, busy = read_cards(proc=NOWHERE)

    assert free.idle
    assert [holder.pid for holder in busy.holders] == [sleeper.pid]
    assert busy.holders[0].mine
    assert f"process {sleeper.pid} of " in busy.why_busy
    assert " s old: " in busy.why_busy
    assert "time.sleep(600)" in busy.why_busy


def test_an_open_device_file_betrays_a_holder_that_the_table_hides(
    node: Any, sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    node("gaudi", [768, 768])
    descriptors = tmp_path / "proc" / str(sleeper.pid) / "fd"
    descriptors.mkdir(parents=True)
    (descriptors / "3").symlink_to("/dev/null")
    (descriptors / "4").symlink_to("/dev/accel/accel1")
    (tmp_path / "proc" / "meminfo").write_text("")

    cards = read_cards(proc=tmp_path / "proc")

    assert [[holder.pid for holder in card.holders] for card in cards] == [[], [sleeper.pid]]
    assert not cards[1].idle


def test_a_program_that_fails_is_reported_in_its_own_words(node: Any) -> None:
    node("gaudi", [768]).save(fail="driver is not loaded")

    with pytest.raises(ServerError) as error:
        read_cards(proc=NOWHERE)

    assert error.value.problem == "`hl-smi` failed with status 1, so the cards of this node are not known."
    assert error.value.evidence == "driver is not loaded"


def test_a_node_without_cards_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert read_cards(proc=NOWHERE) == []


@pytest.mark.parametrize(
    ("device", "environ", "indices"),
    [
        ("gaudi", {}, [0, 1, 2, 3]),
        ("gaudi", {"SLURM_JOB_GPUS": "1,3"}, [1, 3]),
        ("gaudi", {"SLURM_JOB_GPUS": "1,3", "SLURM_STEP_GPUS": "3"}, [3]),
        ("gaudi", {"HABANA_VISIBLE_MODULES": "6,7"}, [1, 3]),
        ("gaudi", {"HABANA_VISIBLE_MODULES": "all", "SLURM_JOB_GPUS": "0"}, [0]),
        ("cuda", {"CUDA_VISIBLE_DEVICES": "0,2", "SLURM_JOB_GPUS": "5,7"}, [0, 2]),
        ("cuda", {"CUDA_VISIBLE_DEVICES": "GPU-00000003"}, [3]),
        ("cuda", {"SLURM_JOB_GPUS": "5,7"}, [0, 1, 2, 3]),
    ],
)
def test_a_job_takes_only_the_cards_it_was_given(
    node: Any, device: str, environ: dict[str, str], indices: list[int]
) -> None:
    node(device, [0, 0, 0, 0])

    assert [card.index for card in allowed_cards(read_cards(proc=NOWHERE), environ)] == indices


def test_cards_are_assigned_inside_a_job_by_module_and_past_a_busy_one(node: Any) -> None:
    node("gaudi", [768, 50000, 768, 768])
    job = {"SLURM_JOB_GPUS": "0,1,3"}

    assert assign_cards(2, environ=job) == {"HABANA_VISIBLE_MODULES": "2,7"}
    with pytest.raises(ServerError) as error:
        assign_cards(3, environ=job)
    assert "3 cards are needed" in error.value.problem
    assert "2 of 3 are idle" in error.value.problem
    assert error.value.evidence.startswith("card 1: 50000 of 98304 MiB used")
    assert "--exclude=" in error.value.next_step


def test_a_server_shows_its_process_the_modules_of_its_cards(node: Any, workspace: Path) -> None:
    node("gaudi", [768, 768, 768])

    server = launch(fake_vllm(cards=[2, 0]), workspace=workspace)

    assert server.record.pid is not None
    assert psutil.Process(server.record.pid).environ()["HABANA_VISIBLE_MODULES"] == "3,2"
    assert server.record.spec["cards"] == [2, 0]


@pytest.mark.parametrize(
    ("device", "known"),
    [("gaudi", {"2": "3", "0": "2"}), ("cuda", {"2": "GPU-00000002", "0": "GPU-00000000"})],
)
def test_a_certificate_names_the_cards_by_index_and_by_the_devices_own_name(
    node: Any, workspace: Path, device: str, known: dict[str, str]
) -> None:
    node(device, [0, 0, 0])

    server = launch(fake_vllm(cards=[2, 0]), workspace=workspace).wait_ready()

    kept = Registry(workspace).get("fake")
    assert kept.certificate is not None
    assert kept.certificate.cards == server.record.cards == known


def test_a_card_in_use_is_refused_before_anything_starts_unless_forced(
    node: Any, workspace: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    node("cuda", [0, 0]).hold(1, sleeper.pid)

    with pytest.raises(ServerError) as error:
        launch(fake_vllm(cards=[0, 1]), workspace=workspace)

    assert error.value.problem == "Server 'fake' is not started: 1 of its 2 cards are in use."
    assert f"card 1: 50000 of 81559 MiB used; process {sleeper.pid} of" in error.value.evidence
    assert "--force" in error.value.next_step
    assert not (workspace / "servers").exists()

    forced = launch(fake_vllm(cards=[0, 1]), workspace=workspace, force=True)
    assert forced.record.pid is not None
    assert psutil.Process(forced.record.pid).environ()["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_a_card_promised_to_a_server_that_starts_is_refused_though_its_memory_is_idle(
    node: Any, workspace: Path
) -> None:
    node("cuda", [0, 0])
    launch(fake_vllm("first", "hangs", cards=[1]), workspace=workspace)

    with pytest.raises(ServerError) as error:
        launch(fake_vllm("second", cards=[1]), workspace=workspace)

    assert error.value.evidence == "card 1: it belongs to server 'first'"


def test_a_card_that_is_not_there_is_refused_even_when_forced(node: Any, workspace: Path) -> None:
    node("cuda", [0, 0])

    with pytest.raises(ServerError, match="asks for card 7, which this node does not have"):
        launch(fake_vllm(cards=[7]), workspace=workspace, force=True)


def test_cards_that_nothing_can_look_at_are_refused_where_their_module_would_be_a_guess(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    params, registry = fake_vllm(cards=[1]), Registry(tmp_path)

    with pytest.raises(ServerError, match="hl-smi is not here"):
        require_cards(params, SiteParams(name="g", device="gaudi"), registry)
    assert [card.module for card in require_cards(params, SiteParams(name="c", device="cuda"), registry)] == [1]


def test_cards_are_needed_by_models_and_not_by_simulated_ones_or_where_a_person_chose_them() -> None:
    site = SiteParams(name="site", device="cuda")

    assert cards_needed(fake_vllm(vllm={"tensor_parallel_size": 2}), site) == 2
    assert cards_needed(fake_vllm(vllm={"tensor_parallel_size": 2, "args": {"pipeline_parallel_size": 2}}), site) == 4
    assert cards_needed(simulated(), site) == 0
    assert cards_needed(fake_vllm(env={"CUDA_VISIBLE_DEVICES": "3"}), site) == 0
    assert cards_needed(fake_vllm(), SiteParams(name="cpu", device="cpu")) == 0


def test_only_own_processes_outside_the_registry_are_stale_and_only_confirmed_ones_are_stopped(
    node: Any, workspace: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    cards = node("cuda", [0, 0, 0])
    server = launch(fake_vllm(cards=[2]), workspace=workspace)
    assert server.record.pid is not None
    cards.hold(0, sleeper.pid)
    cards.hold(1, os.getpid())
    cards.hold(2, server.record.pid)
    seen, registry = read_cards(proc=NOWHERE), Registry(workspace)

    stale = stale_processes(seen, registry)

    assert [holder.pid for holder in stale] == [sleeper.pid]
    with pytest.raises(ParamsError, match="nothing was stopped"):
        list(stop_stale([f"{sleeper.pid}@1", stale[0].token], seen, registry))
    assert sleeper.poll() is None
    with pytest.raises(ParamsError, match="is not a stale process of yours"):
        list(stop_stale([f"{server.record.pid}@{int(server.record.pid_started_at or 0)}"], seen, registry))

    assert list(stop_stale([stale[0].token], seen, registry)) == stale

    assert not process_alive(sleeper.pid, stale[0].started_at)
    assert process_alive(server.record.pid, server.record.pid_started_at or 0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
def test_another_users_process_is_named_and_never_stale(node: Any, workspace: Path) -> None:
    with subprocess.Popen(["sleep", "600"], user="nobody") as other:
        try:
            node("cuda", [0]).hold(0, other.pid)
            seen = read_cards(proc=NOWHERE)

            assert f"process {other.pid} of nobody" in seen[0].why_busy
            assert stale_processes(seen, Registry(workspace)) == []
            with pytest.raises(ParamsError):
                list(stop_stale([seen[0].holders[0].token], seen, Registry(workspace)))
            assert other.poll() is None
        finally:
            other.kill()


def test_a_stop_waits_until_the_memory_of_the_cards_is_back(node: Any, workspace: Path) -> None:
    cards = node("gaudi", [768, 768])
    server = launch(fake_vllm(cards=[1]), workspace=workspace)
    cards.cards[1]["used"] = [60000, 30000, 768]
    cards.save()
    messages: list[str] = []

    server.stop(messages.append)

    assert messages == [
        "SIGTERM",
        "waiting until released: card 1 (60000 MiB)",
        "waiting until released: card 1 (30000 MiB)",
    ]
    assert Registry(workspace).list() == []


def test_a_server_file_bounds_the_wait_for_its_cards(node: Any, workspace: Path) -> None:
    cards = node("gaudi", [768])
    server = launch(fake_vllm(cards=[0], release_timeout_s=0), workspace=workspace)
    cards.cards[0]["used"] = 60000
    cards.save()
    messages: list[str] = []

    server.stop(messages.append)

    assert messages == ["SIGTERM", "not idle after the stop: card 0 (60000 MiB)"]
    assert fake_vllm().release_timeout_s == RELEASE_TIMEOUT_S == 240


def test_the_wait_for_a_card_is_bounded_and_ends_at_once_when_somebody_else_holds_it(
    node: Any, sleeper: subprocess.Popen[bytes]
) -> None:
    cards = node("gaudi", [60000])
    messages: list[str] = []

    assert wait_released([0], timeout_s=0.0, emit=messages.append) is False
    cards.hold(0, sleeper.pid)
    assert wait_released([0], timeout_s=600.0, emit=messages.append) is False

    assert messages == ["not idle after the stop: card 0 (60000 MiB)", "not idle after the stop: card 0 (50000 MiB)"]
