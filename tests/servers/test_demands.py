"""What a run asks of a server is sent to it before, and what a server lacks refuses only those who need it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from scripted_server import Say, serve_in_thread
from serving import fake_vllm, simulated

from tautools.cli.output import watch_starts
from tautools.cli.server import server_command
from tautools.errors import ServerError, VerifyError
from tautools.params.models import RoleParams, RunParams
from tautools.records import Demand, Sampling, Strategy, Thinking
from tautools.run import prepare_cell, run_cell
from tautools.servers import State, attach, endpoints, launch, open_server
from tautools.servers.attaching import verify_target
from tautools.servers.checks.target import CheckTarget
from tautools.servers.checks.tools import run_tools

if TYPE_CHECKING:
    from pathlib import Path

    from scripted_server import Request

    from tautools.records import Check
    from tautools.servers import Server


def check(server: Server, number: int) -> Check:
    assert server.record.certificate is not None
    return next(each for each in server.record.certificate.checks if each.number == number)


def cell(workspace: Path, strategy: str, **agent: Any) -> Any:
    role = {"server": "fake"}
    fields = {"env": "retail", "strategy": strategy, "agent": role | agent, "user": role, "tasks": {"limit": 1}}
    return prepare_cell(RunParams.model_validate(fields), workspace=workspace)


def test_a_verification_sends_a_seed_tools_of_an_env_a_long_prompt_and_as_many_at_once_as_a_run() -> None:
    with serve_in_thread(Say("Ready.", first_s=0.3)) as server:
        certificate = verify_target(CheckTarget(server.base_url))

    sent = [each.body for each in server.requests if each.body.get("seed")]
    assert len(sent) >= Demand().concurrency
    assert server.most_at_once >= Demand().concurrency - 1
    assert all("temperature" not in body for body in sent), "a run's default leaves it to the server"
    assert all(len(str(body["messages"][0]["content"])) > 20_000 for body in sent)
    assert certificate.passed


def test_tools_of_a_verification_are_of_the_size_of_an_env() -> None:
    import json

    assert 12 <= len(run_tools()) <= 16
    assert 8_000 <= len(json.dumps(run_tools())) <= 13_000


def test_a_server_that_only_a_runs_request_ends_is_found_before_the_run(workspace: Path) -> None:
    server = launch(fake_vllm(modes="no_seeds"), workspace=workspace)

    with pytest.raises(VerifyError, match="ended over check 11, as a run") as caught:
        server.wait_ready()

    assert "A request with a seed was computed in several parts" in caught.value.problem
    assert "a seed, 14 tools" in caught.value.evidence
    assert "max_num_batched_tokens" in caught.value.next_step
    assert "URL" not in str(caught.value)


def test_a_prompt_shorter_than_a_chunk_would_not_have_found_it(workspace: Path) -> None:
    params = fake_vllm(modes="no_seeds", vllm={"args": {"max_num_batched_tokens": 4096}})

    assert launch(params, workspace=workspace).wait_ready().state().state is State.READY


@pytest.mark.parametrize(
    ("modes", "words"),
    [
        ("no_tools", ("--tool-call-parser", "--enable-auto-tool-choice", "tool_call_parser")),
        ("wrong_parser", ("it came as text", "--tool-call-parser")),
        ("cuts_calls", ("cut after 512 tokens (finish reason length)", "tool_strict_level")),
        ("bad_calls", ("malformed, its arguments are not an object", "tool_strict_level")),
        ("blind", ("the chat template never shows the tools", "28 tokens without and 28 with", "chat_template")),
    ],
)
def test_a_server_without_tool_calls_serves_those_who_need_none(
    workspace: Path, modes: str, words: tuple[str, ...]
) -> None:
    server = launch(fake_vllm(modes=modes), workspace=workspace).wait_ready()

    assert str(server.state()) == "ready: without tool calls"
    assert check(server, 7).passed is None
    assert all(each in check(server, 7).detail for each in words)
    for strategy in (Strategy.ACT, Strategy.REACT):
        assert cell(workspace, strategy).with_servers().models.endpoints["user"]
    with pytest.raises(VerifyError, match="gives no tool calls, which the agent of this run needs") as caught:
        cell(workspace, Strategy.FC).with_servers()
    assert all(each in caught.value.evidence for each in words)
    assert "`tautools server verify fake`" in caught.value.next_step
    assert ("cut after" in caught.value.evidence) != ("malformed" in caught.value.evidence) or modes not in {
        "cuts_calls",
        "bad_calls",
    }


def test_what_a_run_asks_beyond_the_verification_is_asked_once_and_kept(workspace: Path) -> None:
    server = launch(fake_vllm(), workspace=workspace).wait_ready()
    assert server.record.certificate is not None
    assert [each.tool_calls for each in server.record.certificate.demands] == [True]

    for _ in range(2):
        cell(workspace, Strategy.FC, temperature=0.5, max_tokens=300).with_servers()

    kept = open_server("fake", workspace=workspace).record.certificate
    assert kept is not None
    assert [each.sampling.temperature for each in kept.demands] == [None, 0.5]
    assert kept.passed


def test_a_run_whose_requests_end_its_server_says_so_before_its_first_conversation(workspace: Path) -> None:
    params = fake_vllm(modes="no_seeds", vllm={"max_model_len": 4096, "args": {"max_num_batched_tokens": 4096}})
    launch(params, workspace=workspace).wait_ready()

    agent = {"extra_body": {"crash": True}}
    with pytest.raises(ServerError, match=r"does not answer what the agent of this run asks\. It is failed") as caught:
        run_cell(cell(workspace, Strategy.FC, **agent))

    assert "`tautools server restart fake`" in caught.value.next_step


@pytest.mark.parametrize(
    ("first", "second", "covers"),
    [
        ({}, {}, True),
        ({"tool_calls": True}, {}, True),
        ({}, {"tool_calls": True}, False),
        ({"concurrency": 16}, {"concurrency": 8}, True),
        ({"concurrency": 8}, {"concurrency": 16}, False),
        ({"seeded": False}, {}, False),
        ({}, {"sampling": Sampling(temperature=0)}, False),
        ({}, {"sampling": Sampling(max_tokens=9)}, True),
        ({}, {"thinking": Thinking.OFF}, False),
    ],
)
def test_what_was_tried_covers_what_asks_no_more(first: Any, second: Any, covers: bool) -> None:
    assert Demand(**first).covers(Demand(**second)) is covers


def test_a_server_without_a_model_list_is_used_on_the_users_word(workspace: Path, tmp_path: Path) -> None:
    theirs = launch(fake_vllm(modes="no_list open", env={"NO_KEY": "1"}), workspace=tmp_path / "theirs")
    while "answering" not in theirs.state().stage and theirs.state().state is not State.DEGRADED:
        pass
    address = theirs.record.base_url
    try:
        with pytest.raises(VerifyError, match="fails check 3") as caught:
            attach("mine", address, workspace=workspace)
        assert "--model" in caught.value.evidence
        server = attach("mine", address, workspace=workspace, model="slime")
        assert str(server.state()) == "ready: without model list"
        assert check(server, 3).passed is None
        for role in ({"server": "mine"}, {"base_url": address, "model": "slime"}):
            (found,) = endpoints(RoleParams.model_validate(role), workspace=workspace, role_name="agent")
            assert (found.model, found.base_url) == ("slime", address)
    finally:
        theirs.stop(term_s=0.2)


def answering(request: Request) -> Say:
    if request.body["model"] == "slime":
        return Say("ready")
    return Say(status=404, body={"error": {"message": f"The model {request.body['model']} does not exist."}})


@pytest.mark.parametrize("absent", [404, 405])
def test_an_address_without_a_model_list_is_checked_by_a_real_answer(tmp_path: Path, absent: int) -> None:
    with serve_in_thread(answering, models_status=absent) as server:
        role = {"base_url": server.base_url, "model": "slime"}
        (found,) = endpoints(RoleParams.model_validate(role), workspace=tmp_path, role_name="agent")
        assert found.model == "slime"
        assert len(server.requests) == 1
        with pytest.raises(VerifyError, match="has no model list, and no answer for 'lime'") as caught:
            endpoints(RoleParams.model_validate(role | {"model": "lime"}), workspace=tmp_path, role_name="agent")
    assert "does not exist" in caught.value.evidence


def test_a_simulated_server_is_verified_as_a_run_asks(workspace: Path) -> None:
    server = launch(simulated(simulate={"max_model_len": 8192}), workspace=workspace).wait_ready()

    assert check(server, 11).passed is True
    assert str(server.state()) == "ready"


@pytest.fixture
def told_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("tautools.servers.checks.run"), "_TELL_EVERY_S", 0.05)
    monkeypatch.setattr(import_module("tautools.cli.output"), "SPOKEN_EVERY_S", 0.1)


@pytest.mark.usefixtures("told_often")
def test_while_a_check_takes_long_it_is_said_which_one_and_for_how_long() -> None:
    waits: list[str] = []
    with serve_in_thread(Say("Ready.", first_s=0.5)) as server:
        verify_target(CheckTarget(server.base_url), on_wait=waits.append)

    assert any(words.startswith("chat, tool calls (for ") for words in waits)
    assert any(words.startswith("as a run (for ") for words in waits)


@pytest.mark.usefixtures("told_often")
def test_without_a_terminal_a_slow_verification_says_what_it_waits_for() -> None:
    with serve_in_thread(Say("Ready.", first_s=0.5)) as server:
        done = CliRunner().invoke(server_command, ["test", server.base_url])

    assert done.exit_code == 0, done.output
    assert f"checking {server.base_url}: waiting for as a run (for " in done.stderr
    assert "11 as a run" in done.stdout
    assert "waiting" not in done.stdout


@pytest.mark.usefixtures("told_often")
def test_who_looks_at_a_server_meanwhile_sees_what_its_checks_wait_for(workspace: Path) -> None:
    server = launch(fake_vllm(modes="slow"), workspace=workspace)
    seen: set[str] = set()

    server.wait_ready(on_wait=lambda _words: seen.add(str(open_server("fake", workspace=workspace).state())))

    assert any(words.startswith("verifying: The checks are running: ") and "(for " in words for words in seen)
    assert server.state().state is State.READY


@pytest.mark.usefixtures("told_often")
def test_a_start_without_a_terminal_says_which_check_it_waits_for(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch_starts([launch(fake_vllm(modes="slow"), workspace=workspace)])

    assert "fake: verifying: waiting for chat, tool calls (for " in capsys.readouterr().err
