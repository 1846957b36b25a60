"""Every verb on every kind of server: local, on Slurm, attached, dead, unknown and oddly named.

A verb does what it says or refuses in words; none ends in a traceback.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import called
from serving import simulated, wait_for
from slurm_site import site_with

from tautools.errors import ServerError
from tautools.params.models import RoleParams
from tautools.servers import Registry, Server, endpoints, launch, open_server
from tautools.servers.attaching import attach
from tautools.servers.backends import backend_of
from tautools.shell import process_alive

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCAL, ATTACHED, DEAD, AWAY = "mine", "theirs", "dead", "away"
UNKNOWN, ODD = "mien", "größe 1"

NOT_KNOWN = r"There is no server 'mien' registered.*Did you mean `mine`"
NO_NAME = r"'größe 1' cannot be the name of a server"
NO_FIT = r"does not fit server '{}': it is attached"

READING = [
    ("ls", "", True, r"mine.*ready"),
    ("ls", "", True, r"theirs.*ready"),
    ("ls", "", True, r"dead.*failed"),
    ("ls", "", True, r"away.*unknown.*does not answer"),
    ("logs", LOCAL, True, r"Starting simulate server mine"),
    ("logs", DEAD, True, r"Starting simulate server dead"),
    ("logs", ATTACHED, False, NO_FIT.format(ATTACHED) + ".*its log is where it was started"),
    ("logs", AWAY, False, NO_FIT.format(AWAY)),
    ("logs", UNKNOWN, False, NOT_KNOWN),
    ("logs", ODD, False, NO_NAME),
    ("verify", LOCAL, True, r"SIMULATED mine-model: passed"),
    ("verify", ATTACHED, True, r"SIMULATED other-model: passed"),
    ("verify", DEAD, False, r"health"),
    ("verify", AWAY, False, r"health"),
    ("verify", UNKNOWN, False, NOT_KNOWN),
    ("verify", ODD, False, "größe 1"),
    ("diagnose", LOCAL, True, r"It has not failed: it is ready"),
    ("diagnose", ATTACHED, True, r"It has not failed: it is ready"),
    ("diagnose", DEAD, True, r"signal 9"),
    ("diagnose", AWAY, True, r"It has not failed: it is unknown.*where it was started"),
    ("diagnose", UNKNOWN, False, NOT_KNOWN),
    ("diagnose", ODD, False, NO_NAME),
    ("restart", ATTACHED, False, NO_FIT.format(ATTACHED) + ".*it was not started from here"),
    ("restart", AWAY, False, NO_FIT.format(AWAY)),
    ("restart", UNKNOWN, False, NOT_KNOWN),
    ("restart", ODD, False, NO_NAME),
    ("stop", UNKNOWN, False, NOT_KNOWN),
    ("stop", ODD, False, NO_NAME),
]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace with one server of each kind."""
    workspace, elsewhere = (tmp_path_factory.mktemp("verbs") / name for name in ("work space", "elsewhere"))
    started: list[Server] = []
    try:
        for name, folder in ((LOCAL, workspace), (DEAD, workspace), ("other", elsewhere), ("gone", elsewhere)):
            started.append(launch(simulated(name), workspace=folder))
        _, dead, other, gone = (server.wait_ready() for server in started)
        attach(ATTACHED, other.record.base_url, workspace=workspace, key=other.endpoint().key)
        attach(AWAY, gone.record.base_url, workspace=workspace, key=gone.endpoint().key)
        gone.stop()
        pid, started_at = dead.record.pid or 0, dead.record.pid_started_at or 0.0
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not process_alive(pid, started_at) and Registry(workspace).exit_code(dead.record) is not None)
        yield workspace
    finally:
        for server in started:
            with contextlib.suppress(ServerError):
                server.stop(term_s=1.0)


@pytest.mark.parametrize(("verb", "name", "works", "says"), READING)
def test_a_verb_does_what_it_says_or_refuses_in_words(
    servers: Path, verb: str, name: str, works: bool, says: str
) -> None:

    done = called("server", verb, *([name] if name else []), "--workspace", str(servers))

    assert (done.code == 0) is works, done
    assert re.search(says, done.out + done.err, re.DOTALL), done


def test_a_record_that_cannot_be_read_is_named_beside_the_list(servers: Path) -> None:
    broken = servers / "servers" / "launches" / "broken.json"
    broken.write_text("{")
    try:
        done = called("server", "ls", "--workspace", str(servers))
    finally:
        broken.unlink()

    assert done.code == 0
    assert "mine" in done.out
    assert f"The server record {broken} cannot be read." in done.err


def test_a_role_learns_how_to_get_each_server_back(servers: Path) -> None:
    for name in (LOCAL, ATTACHED):
        assert endpoints(RoleParams(server=name), workspace=servers, role_name="agent")
    for name, advice in ((DEAD, "tautools server restart dead"), (AWAY, "Start it again where it was started")):
        with pytest.raises(ServerError) as caught:
            endpoints(RoleParams(server=name), workspace=servers, role_name="agent")
        assert advice in caught.value.next_step
        assert ("server restart" in caught.value.next_step) is (name == DEAD)


def test_a_taken_name_is_refused_by_every_backend_and_a_dead_one_is_free(servers: Path) -> None:
    for name, says in ((LOCAL, "runs already"), (ATTACHED, "is attached"), (AWAY, "is attached")):
        with pytest.raises(ServerError, match=says):
            launch(simulated(name), workspace=servers)
    registry = Registry(servers)
    for name in (LOCAL, DEAD, ATTACHED, AWAY):
        record = registry.get(name)
        backend = backend_of(record)
        assert backend.address(record) == record.base_url
        assert backend.time_left(record) is None
        assert len(backend.logs(record)) == (2 if backend.owns else 0)
        assert backend.has_ended(record, registry) is (name == DEAD)


def test_a_dead_server_is_restarted_and_all_are_stopped_or_detached(servers: Path) -> None:
    done = called("server", "restart", DEAD, "--workspace", str(servers))
    assert done.code == 0, done
    others = open_server(ATTACHED, workspace=servers).endpoint().base_url

    done = called("server", "stop", LOCAL, DEAD, ATTACHED, AWAY, "--workspace", str(servers))

    assert done.code == 0, done
    for name, word in ((LOCAL, "stopped"), (DEAD, "stopped"), (ATTACHED, "detached"), (AWAY, "detached")):
        assert f"{name}: {word}" in done.out
    assert Registry(servers).list() == []
    assert called("server", "test", others).code in {0, 1}  # it still answers; without its key a check may fail


@pytest.mark.slurm
def test_the_same_verbs_on_a_job_of_slurm(slurm: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "work space"
    server = launch(simulated("job"), workspace=workspace, site=site_with()).wait_ready()
    where = ("--workspace", str(workspace))
    try:
        assert "Starting simulate server job" in called("server", "logs", "job", *where).out
        assert "It has not failed: it is ready" in called("server", "diagnose", "job", *where).out
        assert called("server", "verify", "job", *where).code == 0
        assert called("server", "ls", *where).out.count("ready") == 1
        assert 0 < (server.time_left() or 0) <= 600
        with pytest.raises(ServerError, match="has a job in this workspace"):
            launch(simulated("job"), workspace=workspace)
        assert called("server", "restart", "job", *where).code == 0
        assert Registry(workspace).get("job").job_id != server.record.job_id
    finally:
        done = called("server", "stop", "job", *where)
    assert "job: stopped" in done.out
