"""Any address can be verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from serving import fake_vllm

from tautools.errors import ParamsError
from tautools.servers import as_base_url, launch, verify_target
from tautools.servers.checks.target import CheckTarget

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.llm.types import Endpoint


@pytest.fixture
def served(workspace: Path) -> Endpoint:
    return launch(fake_vllm(), workspace=workspace).wait_ready().endpoint()


def test_any_server_is_verified_by_its_address(served: Endpoint) -> None:
    certificate = verify_target(CheckTarget(served.base_url, key=served.key))

    assert certificate.passed
    assert certificate.model == "org/Some-4B"
    assert {check.number: check.passed for check in certificate.checks} == {
        0: None,
        1: None,
        2: True,
        3: True,
        4: True,
        5: True,
        7: True,
        11: True,
    }


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"key": "wrong"}, "401: the key is not the server's"),
        ({}, "401: the server wants a key"),
        ({"model": "org/some-4B"}, "did you mean 'org/Some-4B'?"),
        ({"alias": "launch-0"}, "not 'launch-0'"),
    ],
)
def test_a_server_that_is_another_one_fails_at_identity(served: Endpoint, asked: dict[str, str], words: str) -> None:
    given = {"key": served.key} | asked if asked else {}

    certificate = verify_target(CheckTarget(served.base_url, **given))

    failed = [check for check in certificate.checks if check.passed is False]
    assert [check.name for check in failed] == ["identity"]
    assert words in failed[0].detail
    assert all(check.passed is None for check in certificate.checks if check.number > 3)


def test_where_nothing_listens_the_health_check_fails() -> None:
    certificate = verify_target(CheckTarget("http://127.0.0.1:9/v1"))

    assert not certificate.passed
    failed = next(check for check in certificate.checks if check.passed is False)
    assert failed.name == "health"
    assert "cannot be reached" in failed.detail


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://gaudi001:8007/v1", "http://gaudi001:8007/v1"),
        ("http://gaudi001:8007/v1/", "http://gaudi001:8007/v1"),
        ("http://gaudi001:8007", "http://gaudi001:8007/v1"),
        ("gaudi001:8007", "http://gaudi001:8007/v1"),
        ("https://host/openai/v1", "https://host/openai/v1"),
    ],
)
def test_an_address_is_read_as_people_write_it(written: str, meant: str) -> None:
    assert as_base_url(written) == meant


@pytest.mark.parametrize("text", ["", "ftp://x/v1", "http://"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ParamsError, match="is not the address of a server"):
        as_base_url(text)
