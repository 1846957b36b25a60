"""Servers that others started: taken in, verified, used, let go."""

from __future__ import annotations

import json
import os
import signal
import stat
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from served_cells import simulated_model
from serving import fake_vllm, simulated

from tautools.cli.server import server_command
from tautools.errors import ParamsError, ServerError, VerifyError
from tautools.params.models import RoleParams
from tautools.records import ServerRecord
from tautools.servers import Registry, State, endpoints, launch, open_server, server_states
from tautools.servers.attaching import (
    attach,
    attach_all,
    read_model_config,
    short_name,
    write_model_config,
)
from tautools.shell import process_alive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tautools.servers import Server


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[list[Server]]:
    """Two servers of somebody else: of another workspace, with a key each, the second one a replica."""
    elsewhere = tmp_path / "elsewhere"
    started = [launch(simulated("sim"), workspace=elsewhere, name=name) for name in ("one", "two")]
    try:
        yield [server.wait_ready() for server in started]
    finally:
        for server in started:
            server.stop(term_s=0.5)


def alive(server: Server) -> bool:
    return process_alive(server.record.pid or 0, server.record.pid_started_at or 0.0)


def test_an_attached_server_is_verified_listed_used_and_let_go(workspace: Path, theirs: list[Server]) -> None:
    there = theirs[0].endpoint()

    server = attach("mine", there.base_url, workspace=workspace, model="sim-model", key=there.key)

    assert server.state().state is State.READY
    assert [(record.name, record.backend, seen.state) for record, seen in server_states(workspace)] == [
        ("mine", "attached", State.READY)
    ]
    certificate = server.record.certificate
    assert certificate is not None
    assert {check.number: check.passed for check in certificate.checks if check.number > 1} == dict.fromkeys(
        (2, 3, 4, 5, 7, 11), True
    )
    for role in ({"server": "mine"}, {"model": "sim-model"}):
        (found,) = endpoints(RoleParams.model_validate(role), workspace=workspace, role_name="agent")
        assert (found.base_url, found.key, found.name, found.simulated) == (there.base_url, there.key, "mine", True)
    assert stat.S_IMODE((workspace / "servers" / "mine.key").stat().st_mode) == 0o600

    open_server("mine", workspace=workspace).stop()

    assert alive(theirs[0])
    assert theirs[0].state().state is State.READY
    assert Registry(workspace).list() == []
    assert not (workspace / "servers" / "mine.key").exists()


def test_the_model_is_asked_for_when_it_is_not_given(workspace: Path, theirs: list[Server]) -> None:
    there = theirs[0].endpoint()

    assert attach("mine", there.base_url, workspace=workspace, key=there.key).record.model == "sim-model"


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"key": "wrong"}, "401"), ({"model": "other"}, "not 'other'"), ({"key": ""}, "the server wants a key")],
)
def test_what_is_not_verified_is_not_attached(
    workspace: Path, theirs: list[Server], asked: dict[str, str], words: str
) -> None:
    there = theirs[0].endpoint()
    given = {"model": "sim-model", "key": there.key} | asked

    with pytest.raises(VerifyError, match="is not attached: it fails check 3") as caught:
        attach("mine", there.base_url, workspace=workspace, **given)

    assert words in caught.value.evidence
    assert Registry(workspace).list() == []
    assert list((workspace / "servers").glob("*.*")) == []


def test_where_nothing_answers_nothing_is_written(workspace: Path) -> None:
    with pytest.raises(VerifyError, match="is not attached: it fails check 2, health"):
        attach("mine", "http://127.0.0.1:9/v1", workspace=workspace)

    assert list(workspace.iterdir()) == []


def test_a_name_that_is_taken_and_an_address_with_a_password_are_refused(workspace: Path, theirs: list[Server]) -> None:
    there = theirs[0].endpoint()
    attach("mine", there.base_url, workspace=workspace, key=there.key)

    with pytest.raises(ServerError, match="'mine' is registered already"):
        attach("mine", theirs[1].record.base_url, workspace=workspace, key=theirs[1].endpoint().key)
    with pytest.raises(ServerError, match="'mine'"):
        launch(simulated("mine"), workspace=workspace)
    with pytest.raises(ParamsError, match="must not contain a user or a password") as caught:
        attach("other", "http://me:secret@127.0.0.1:9/v1", workspace=workspace)
    assert "secret" not in str(caught.value)
    with pytest.raises(ParamsError, match="cannot be the name of a server"):
        attach("../up", there.base_url, workspace=workspace)

    assert open_server("mine", workspace=workspace).state().state is State.READY


def test_an_attached_server_that_is_gone_is_not_ready(workspace: Path, theirs: list[Server]) -> None:
    there = theirs[0].endpoint()
    server = attach("mine", there.base_url, workspace=workspace, key=there.key)

    os.kill(theirs[0].record.pid or 0, signal.SIGKILL)
    while alive(theirs[0]):
        pass

    assert server.state().state is State.UNKNOWN
    with pytest.raises(ServerError, match="No server for the agent is ready: mine is unknown"):
        endpoints(RoleParams(server="mine"), workspace=workspace, role_name="agent")


def test_an_attached_server_that_takes_any_key_by_now_is_not_used(workspace: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    first = launch(fake_vllm(), workspace=elsewhere).wait_ready()
    there, port = first.endpoint(), int(first.record.base_url.rsplit(":", 1)[1].removesuffix("/v1"))
    attach("mine", there.base_url, workspace=workspace, key=there.key)
    first.stop()
    second = launch(fake_vllm(modes="open", port=port), workspace=elsewhere)
    try:
        with pytest.raises(VerifyError, match="fails check 4"):
            second.wait_ready()
        with pytest.raises(ServerError, match="mine is not what was verified: key: the server is open"):
            endpoints(RoleParams(server="mine"), workspace=workspace, role_name="agent")
    finally:
        second.stop()


@pytest.fixture
def call(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TAUTOOLS_WORKSPACE", str(workspace))

    def tautools(*words: str, status: int = 0) -> Any:
        done = CliRunner().invoke(server_command, words)
        assert done.exit_code == status, done.output
        return done

    return tautools


@pytest.fixture
def open_two() -> Iterator[list[str]]:
    """Two servers without a key, which somebody else runs."""
    with simulated_model(skill=1.0) as one, simulated_model(skill=1.0) as two:
        yield [one.base_url, two.base_url]


def written(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_replicas_of_a_model_config_are_attached_used_together_and_written_again(
    workspace: Path, tmp_path: Path, open_two: list[str], call: Any
) -> None:
    entries = [{"ip_addr": "127.0.0.1", "port": url.split(":")[2].removesuffix("/v1")} for url in open_two]
    content = {"sim-4B": entries, "vllm_model_config_path": "model_config_local.json"}
    path = written(tmp_path / "model_config_local.json", content)

    said = call("attach", "--model-config", str(path)).stdout

    assert [line.split(":")[0] for line in said.splitlines()] == ["sim-4B-1", "sim-4B-2"]
    for role in ({"server": "sim-4B"}, {"model": "sim-4B"}):
        found = endpoints(RoleParams.model_validate(role), workspace=workspace, role_name="agent")
        assert [endpoint.base_url for endpoint in found] == open_two
    again = tmp_path / "again.json"
    call("export", "--model-config", str(again))
    assert json.loads(again.read_text()) == content | {"vllm_model_config_path": str(again)}
    stopped = call("stop", "--all").stdout
    assert stopped.splitlines() == ["sim-4B-1: detached", "sim-4B-2: detached"]
    call("attach", "--model-config", str(again))


def test_of_a_model_config_what_is_dead_is_reported_and_the_rest_is_attached(
    workspace: Path, tmp_path: Path, open_two: list[str], call: Any
) -> None:
    port = open_two[0].split(":")[2].removesuffix("/v1")
    entries = [{"ip_addr": "127.0.0.1", "port": port}, {"ip_addr": "127.0.0.1", "port": 9}]
    path = written(tmp_path / "c.json", {"sim-4B": entries})

    done = call("attach", "--model-config", str(path), status=1)

    assert "sim-4B-2: http://127.0.0.1:9/v1 is not attached" in done.stderr
    assert [record.name for record in Registry(workspace).list()] == ["sim-4B-1"]


def test_a_model_config_that_is_not_there_is_said_to_be_absent_and_not_bad_json(tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as caught:
        read_model_config(tmp_path / "gone.json")
    assert "cannot be opened" in str(caught.value)
    assert "No such file" in str(caught.value)
    assert "JSON" not in str(caught.value)
    assert "server export --model-config" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read as a model configuration"),
        ("[]", "the whole file is not a list of addresses"),
        ("{}", "names no model"),
        ('{"vllm_model_config_path": "x"}', "names no model"),
        ('{"m": {}}', "'m' is not a list of addresses"),
        ('{"m": []}', "'m' is not a list of addresses"),
        ('{"m": ["127.0.0.1:1900"]}', "'m' is not a list of addresses"),
        ('{"m": [{"ip_addr": "127.0.0.1"}]}', "'m' is not a list of addresses"),
        ('{"m": [{"ip_addr": "127.0.0.1", "port": "70000"}]}', "'m' is not a list of addresses"),
        ('{"m": [{"ip_addr": "a/b@c", "port": "1900"}]}', "'m' is not a list of addresses"),
        ('{"m": [{"ip_addr": "a\\nb", "port": "1900"}]}', "'m' is not a list of addresses"),
    ],
)
def test_a_model_config_that_is_none_is_refused_and_nothing_is_written(
    workspace: Path, tmp_path: Path, call: Any, content: str, words: str
) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)

    done = call("attach", "--model-config", str(path), status=2)

    assert words in done.stderr
    assert "Next:" in done.stderr
    assert list(workspace.iterdir()) == []


def test_addresses_are_read_and_written_as_tool_orchestra_does(tmp_path: Path) -> None:
    content = {"m": [{"ip_addr": "::1", "port": 1900}, {"ip_addr": "gaudi001", "port": "1901"}]}
    path = written(tmp_path / "c.json", content)

    assert read_model_config(path) == {"m": ["http://[::1]:1900/v1", "http://gaudi001:1901/v1"]}
    records = [
        ServerRecord(name=f"s{n}", model="m", base_url=url) for n, url in enumerate(read_model_config(path)["m"])
    ]
    write_model_config(path, records)
    assert json.loads(path.read_text())["m"] == [
        {"ip_addr": "::1", "port": "1900"},
        {"ip_addr": "gaudi001", "port": "1901"},
    ]
    with pytest.raises(ParamsError, match="knows hosts and ports alone"):
        write_model_config(path, [ServerRecord(name="s", model="m", base_url="https://host/openai/v1")])


@pytest.mark.parametrize(
    ("model", "name"),
    [("Qwen/Qwen3-8B", "Qwen3-8B"), ("/models/My Model/", "My-Model"), ("$(rm -rf)", "rm--rf"), ("/", "server")],
)
def test_a_model_gives_its_servers_a_plain_name(model: str, name: str) -> None:
    assert short_name(model) == name


def test_models_of_one_short_name_are_not_mixed(workspace: Path, open_two: list[str]) -> None:
    _, failures = attach_all({"/a/sim": [open_two[0]], "/b/sim": [open_two[1], open_two[0]]}, workspace=workspace)

    assert list(failures) == ["sim", "sim_2-1", "sim_2-2"]
    assert all("serves sim-4B" in error.evidence for error in failures.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["attach"], "give NAME and URL"),
        (["attach", "mine"], "give NAME and URL"),
        (["attach", "mine", "--model-config", "c.json"], "has names, addresses and models of its own"),
        (["attach", "mine", "http://127.0.0.1:9", "--key-env", "NO_SUCH"], "no such environment variable"),
        (["attach", "mine", "ftp://x"], "is not the address of a server"),
        (["verify", "mine", "--thinking", "on"], "--thinking: for an address"),
        (["export", "--model-config", "c.json", "--show-keys"], "holds every verified server, and no key"),
    ],
)
def test_bad_input_ends_with_status_2_and_changes_nothing(
    workspace: Path, call: Any, words: list[str], said: str
) -> None:
    assert said in call(*words, status=2).stderr
    assert list(workspace.iterdir()) == []


def test_any_address_is_verified_with_all_checks(
    theirs: list[Server], call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = theirs[0].endpoint()
    monkeypatch.setenv("THEIR_KEY", there.key)

    said = call("verify", there.base_url, "--key-env", "THEIR_KEY", "--concurrency", "4", "--json").stdout

    certificate = json.loads(said)
    assert certificate["passed"] is True
    assert [check["number"] for check in certificate["checks"]] == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    assert "FAILED  3 identity" in call("verify", there.base_url, status=1).stdout


def test_a_bare_host_is_an_address_to_test_and_a_name_to_verify(call: Any) -> None:
    certificate = json.loads(call("test", "nowhere.invalid", "--thinking", "off", "--json", status=1).stdout)

    assert certificate["base_url"] == "http://nowhere.invalid/v1"
    assert "There is no server 'nowhere.invalid'" in call("verify", "nowhere.invalid", status=2).stderr


def test_an_attached_server_is_typed_in_and_verified_by_its_name(
    theirs: list[Server], call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = theirs[0].endpoint()
    monkeypatch.setenv("THEIR_KEY", there.key)

    said = call("attach", "mine", there.base_url, "--model", "sim-model", "--key-env", "THEIR_KEY").stdout

    assert said == f"mine: attached, {there.base_url}  model sim-model\n"
    assert "passed" in call("verify", "mine").stdout
    (row,) = json.loads(call("ls", "--json").stdout)
    assert (row["name"], row["backend"], row["state"]) == ("mine", "attached", "ready")
    assert there.key not in said + call("verify", "mine", "--json").stdout
