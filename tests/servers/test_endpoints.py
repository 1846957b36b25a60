"""Which addresses answer for a role, and what is said when none does."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from serving import fake_vllm, members, simulated, wait_for

from tautools.errors import ModelCallError, ServerError, VerifyError
from tautools.llm.types import Endpoint
from tautools.params.models import RoleParams
from tautools.servers import endpoints, launch

if TYPE_CHECKING:
    from pathlib import Path


def ask(workspace: Path, **role: Any) -> list[Endpoint]:
    return endpoints(RoleParams.model_validate(role), workspace=workspace, role_name="agent")


@pytest.fixture
def served(workspace: Path) -> Endpoint:
    return launch(fake_vllm(), workspace=workspace).wait_ready().endpoint()


def test_a_running_server_is_found_by_its_name_or_by_its_model(workspace: Path, served: Endpoint) -> None:
    assert ask(workspace, server="fake") == ask(workspace, model="org/Some-4B") == ask(workspace, server="org/Some-4B")
    assert ask(workspace, server="fake") == [served]
    assert served.max_model_len == 4096


def test_an_address_is_taken_with_the_key_of_the_registry_when_it_is_registered(
    workspace: Path, served: Endpoint
) -> None:
    assert ask(workspace, base_url=served.base_url, model="org/Some-4B") == [served]
    assert ask(workspace, base_url=served.base_url.removesuffix("/v1") + "/", model="org/Some-4B") == [served]


def test_an_address_is_taken_with_the_key_of_the_environment(
    workspace: Path, served: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", served.key)

    (found,) = ask(tmp_path, base_url=served.base_url, model="org/Some-4B", api_key_env="MY_KEY")

    assert (found.base_url, found.key, found.name) == (served.base_url, served.key, "")


def test_a_model_named_alone_is_asked_at_the_address_that_tau_benchs_users_set(
    workspace: Path, served: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_BASE", served.base_url.removesuffix("/v1"))
    monkeypatch.setenv("OPENAI_API_KEY", served.key)
    (found,) = ask(tmp_path, model="org/Some-4B")
    assert (found.base_url, found.key) == (served.base_url, served.key)
    with pytest.raises(ServerError, match="No running server serves 'fake'"):
        ask(tmp_path, server="fake")
    monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:9/v1")
    assert ask(workspace, model="org/Some-4B") == [served], "a registered server comes first"


def test_a_key_of_openai_goes_to_no_address_that_was_given_otherwise(
    served: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", served.key)
    with pytest.raises(VerifyError, match=r"refuses the key \(401\)"):
        ask(tmp_path, base_url=served.base_url, model="org/Some-4B")


def test_a_wrong_key_is_reported(workspace: Path, served: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "wrong")

    with pytest.raises(VerifyError, match=r"refuses the key \(401\)") as caught:
        ask(workspace, base_url=served.base_url, model="org/Some-4B", api_key_env="MY_KEY")

    assert "api_key_env" in caught.value.next_step
    assert "wrong" not in str(caught.value)


def test_a_key_that_is_not_set_is_reported(workspace: Path, served: Endpoint) -> None:
    with pytest.raises(ServerError, match="NO_SUCH_KEY, which is not set"):
        ask(workspace, base_url=served.base_url, model="org/Some-4B", api_key_env="NO_SUCH_KEY")


def test_a_model_that_is_not_served_is_reported_with_the_nearest(workspace: Path, served: Endpoint) -> None:
    for role in ({"base_url": served.base_url, "model": "org/some-4b"}, {"server": "fake", "model": "org/some-4b"}):
        with pytest.raises(VerifyError, match="does not serve 'org/some-4b', which the agent needs") as caught:
            ask(workspace, **role)

        assert "It serves: org/Some-4B" in caught.value.evidence
        assert caught.value.next_step == "Ask for 'org/Some-4B'."


def test_an_address_where_nothing_answers_is_reported(workspace: Path) -> None:
    with pytest.raises(ServerError, match=r"Nothing answers for the agent at http://127\.0\.0\.1:9/v1"):
        ask(workspace, base_url="http://127.0.0.1:9/v1", model="m")

    assert list(workspace.iterdir()) == []


def test_an_unknown_server_is_reported_with_the_nearest(workspace: Path, served: Endpoint) -> None:
    with pytest.raises(ServerError, match="No running server serves 'fakke', which the agent needs") as caught:
        ask(workspace, server="fakke")

    assert "tautools server up fakke" in caught.value.next_step
    assert "did you mean 'fake'?" in caught.value.next_step


def test_without_any_server_the_next_step_is_to_start_one(workspace: Path) -> None:
    with pytest.raises(ServerError, match="No running server serves 'sim-small'") as caught:
        ask(workspace, server="sim-small")

    assert caught.value.evidence == "No server is registered in this workspace."
    assert list(workspace.iterdir()) == []


def test_a_server_that_still_starts_is_not_used(workspace: Path) -> None:
    launch(fake_vllm(modes="hangs"), workspace=workspace)

    with pytest.raises(ServerError, match="No server for the agent is ready: fake is starting"):
        ask(workspace, server="fake")


def test_a_dead_server_is_not_used(workspace: Path, served: Endpoint) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()
    os.kill(server.record.pid or 0, signal.SIGKILL)
    wait_for(lambda: members(server) == [])  # until then it is "degraded": it runs and does not answer

    with pytest.raises(ServerError, match="No server for the agent is ready: sim is failed"):
        ask(workspace, server="sim")


def test_replicas_of_a_file_all_answer(workspace: Path) -> None:
    for name in ("left", "right"):
        launch(simulated(), workspace=workspace, name=name).wait_ready()

    found = ask(workspace, server="sim")

    assert [endpoint.name for endpoint in found] == ["left", "right"]
    assert all(endpoint.simulated and endpoint.model == "sim-model" for endpoint in found)


def test_a_hosted_provider_needs_its_key_before_any_work(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)

    with pytest.raises(ModelCallError, match="GEMINI_API_KEY"):
        ask(workspace, provider="gemini", model="gemini-2.5-flash")

    monkeypatch.setenv("GEMINI_API_KEY", "x")
    assert ask(workspace, provider="gemini", model="gemini-2.5-flash") == [
        Endpoint("", "gemini-2.5-flash", provider="gemini")
    ]
