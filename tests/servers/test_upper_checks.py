"""The checks of thinking and of load, at servers that pass them and at servers that fail them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from serving import fake_vllm, simulated

from tautools.errors import VerifyError
from tautools.params.models import ServerParams
from tautools.records import Thinking
from tautools.servers import State, launch
from tautools.servers.attaching import verify_target
from tautools.servers.checks.target import CheckContext, CheckFailedError, CheckTarget, check_key

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.records import Certificate, Check
    from tautools.servers import Server


def thinking(asked: bool | None, modes: str) -> ServerParams:
    return fake_vllm(modes=modes, vllm={} if asked is None else {"chat_template_kwargs": {"enable_thinking": asked}})


def checks_of(certificate: Certificate | None) -> dict[int, Check]:
    assert certificate is not None
    return {check.number: check for check in certificate.checks}


@pytest.mark.parametrize(("asked", "modes"), [(True, "thinks"), (False, "")])
def test_the_thinking_state_that_was_asked_for_is_checked(workspace: Path, asked: bool, modes: str) -> None:
    server = launch(thinking(asked, modes), workspace=workspace).wait_ready()

    checks = checks_of(server.record.certificate)
    assert list(checks) == [0, 1, 2, 3, 4, 5, 6, 7, 11]
    assert checks[6].passed is True


@pytest.mark.parametrize(
    ("asked", "modes", "words"),
    [
        (True, "", "asked to think and does not"),
        (True, "thinks_aloud", "<think> stands in the text; set `reasoning_parser`"),
        (False, "thinks", "asked not to think and does (apart from the text)"),
        (False, "thinks_aloud", "asked not to think and does (<think> in the text)"),
    ],
)
def test_another_thinking_state_is_degraded(workspace: Path, asked: bool, modes: str, words: str) -> None:
    server = launch(thinking(asked, modes), workspace=workspace)

    with pytest.raises(VerifyError, match="fails check 6") as caught:
        server.wait_ready()

    assert words in caught.value.evidence
    assert server.state().state is State.DEGRADED


def test_thinking_is_not_looked_at_when_nothing_was_asked(workspace: Path) -> None:
    server = launch(thinking(None, "thinks_aloud"), workspace=workspace).wait_ready()

    assert list(checks_of(server.record.certificate)) == [0, 1, 2, 3, 4, 5, 7, 11]


def at_address(server: Server, **asked: Any) -> dict[int, Check]:
    endpoint = server.endpoint()
    return checks_of(verify_target(CheckTarget(endpoint.base_url, endpoint.model, key=endpoint.key, **asked)))


def test_at_an_address_thinking_is_looked_at_when_asked(workspace: Path) -> None:
    server = launch(thinking(None, "thinks"), workspace=workspace).wait_ready()

    assert at_address(server, thinking=Thinking.ON)[6].passed is True
    assert at_address(server, thinking=Thinking.OFF)[6].passed is False


def test_on_request_a_server_is_loaded_too(workspace: Path) -> None:
    server = launch(fake_vllm(), workspace=workspace).wait_ready()

    checks = checks_of(server.verify(concurrency=6))

    assert list(checks) == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    assert [checks[number].passed for number in (8, 9, 10)] == [True, True, True]
    assert checks[8].detail == "4080 of 4096 tokens are answered, more are refused with 400"
    assert checks[9].detail.startswith("6 chats at once answered in ")
    assert checks[10].detail == "the same text twice at temperature 0"
    assert server.state().state is State.READY


def test_a_simulated_server_bears_the_load_of_a_run(workspace: Path) -> None:
    server = launch(simulated(simulate={"max_model_len": 8192}), workspace=workspace).wait_ready()

    checks = checks_of(server.verify(concurrency=16))

    assert [checks[number].passed for number in (8, 9, 10)] == [True, True, True]
    assert checks[9].detail.endswith("0 preemptions")


@pytest.mark.parametrize(
    ("modes", "number", "words"),
    [
        ("cuts", 8, "more than 4096 tokens: they were answered"),
        ("breaks", 8, "the refusal is not a clean 400"),
        ("crowded", 9, "of 6 chats at once were not answered"),
    ],
)
def test_a_server_that_does_not_bear_the_load_is_degraded(workspace: Path, modes: str, number: int, words: str) -> None:
    server = launch(fake_vllm(modes=modes), workspace=workspace).wait_ready()

    checks = checks_of(server.verify(concurrency=6))

    assert checks[number].passed is False
    assert words in checks[number].detail
    assert server.state().state is State.DEGRADED


def test_a_refused_request_is_reported_with_what_it_means(workspace: Path) -> None:
    server = launch(fake_vllm(vllm={"max_model_len": 256}), workspace=workspace)

    with pytest.raises(VerifyError) as caught:
        server.wait_ready()

    assert "server's context of 256 tokens. Give the server a longer `max_model_len`" in caught.value.evidence


def test_other_words_each_time_are_noted_and_no_failure(workspace: Path) -> None:
    server = launch(fake_vllm(modes="moody"), workspace=workspace).wait_ready()

    certificate = server.verify(concurrency=1)

    assert checks_of(certificate)[10].passed is None
    assert "not deterministic" in checks_of(certificate)[10].detail
    assert certificate.passed


def test_the_certificate_holds_versions_flags_and_variables_without_secrets(workspace: Path) -> None:
    params = fake_vllm(env={"FAKE_VLLM": "", "HF_TOKEN": "hf_mine", "OMP_NUM_THREADS": "2"})
    server = launch(params, workspace=workspace).wait_ready()

    certificate = server.record.certificate

    assert certificate is not None
    assert certificate.versions["server"] == "0.0-fake"
    assert "--tool-call-parser" in certificate.flags
    assert certificate.env["OMP_NUM_THREADS"] == "2"
    text = certificate.model_dump_json()
    assert "hf_mine" not in text
    assert server.endpoint().key not in text


def test_the_values_of_secret_flags_are_hidden() -> None:
    from tautools.servers.checks.run import public_flags

    shown = public_flags(["vllm", "serve", "--hf-token", "hf_mine", "--api-key=mine", "--max-num-batched-tokens", "8"])

    assert "mine" not in " ".join(shown)
    assert shown[-2:] == ["--max-num-batched-tokens", "8"]


def test_a_port_on_which_nothing_listens_any_more_is_not_called_open() -> None:
    context = CheckContext(CheckTarget("http://127.0.0.1:9/v1", key="k"))

    with pytest.raises(CheckFailedError, match=r"it did not answer a question without a key: .*refused"):
        check_key(context)
