"""Keys as people have them: with a line break, quotes, `Bearer`, a blank inside; over real HTTP, in every verb."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from command_line import Typed, typed
from scripted_server import ScriptedServer, serve_in_thread
from serving import simulated
from small_hub import model_files, small_hub

import tautools as tt
from tautools.errors import ModelCallError, ParamsError, ServerError, TautoolsError
from tautools.http import http_get
from tautools.http_stream import StreamHttp
from tautools.params import resolve_run
from tautools.params.keys import read_key
from tautools.redaction import redacted
from tautools.servers import Registry, attach, launch
from tautools.servers.weights import check_weights

KEY = "Zx81-planted/key+of=nobody"
AROUND = ("{}\n", "{}\r\n", " \t{} ", "\ufeff{}", "{}\u200b", '"{}"\n', "'{}'", "Bearer {}",
          "Authorization: bearer {}\n", '"Bearer {}"', "\u201c{}\u201d", "\u00a0{}")  # fmt: skip
INSIDE = (
    "{}\n{}",
    "{} {}",
    "{}\t# mine",
    '"{}',
    "{}\u00e9",
    "export KEY={}",
    "{}\x00",
    "{}\x1b[0m",
    "{}\u2026",
    "a\ud800{}",
)


@pytest.mark.parametrize("form", AROUND)
def test_what_copying_leaves_around_a_key_is_taken_off(form: str) -> None:
    assert read_key(form.format(KEY), "MY_KEY") == KEY


@pytest.mark.parametrize("form", INSIDE)
def test_what_cannot_be_part_of_a_key_is_refused_without_showing_it(form: str) -> None:
    with pytest.raises(ParamsError, match="The key in MY_KEY cannot be used") as refused:
        read_key(form.format(KEY, KEY), "MY_KEY")
    assert "planted" not in str(refused.value)
    assert "character" in refused.value.evidence


@pytest.mark.parametrize("text", ["", "\n", '""', "Bearer ", "'\t'"])
def test_nothing_is_no_key(text: str) -> None:
    assert read_key(text, "MY_KEY") == ""


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serve_in_thread("Hello.", key=KEY, model="org/m-4B") as running:
        yield running


def verbs(base_url: str) -> dict[str, tuple[str, ...]]:
    """Return every command that takes the key of a variable, by its name."""
    run = ("run", "--env", "airline", "--model", "org/m-4B", "--limit", "1", "--set", "limits.max_rounds=1")
    return {
        "verify": ("server", "verify", base_url, "--key-env", "MY_KEY"),
        "test": ("server", "test", base_url, "--key-env", "MY_KEY"),
        "attach": ("server", "attach", "mine", base_url, "--key-env", "MY_KEY"),
        "run": (*run, "--base-url", base_url, "--key-env", "MY_KEY", "--user-base-url", base_url,
                "--user-model", "org/m-4B", "--user-key-env", "MY_KEY"),
        "run by OPENAI_API_BASE": run,
    }  # fmt: skip


def tried(verb: str, server: ScriptedServer, key: str, workspace: Path) -> Typed:
    names = {"MY_KEY": key, "OPENAI_API_KEY": key, "OPENAI_API_BASE": server.base_url}
    return typed(*verbs(server.base_url)[verb], "--workspace", str(workspace), env=names)


@pytest.mark.parametrize("verb", verbs(""))
def test_every_verb_takes_a_key_with_a_line_break_and_refuses_one_with_a_blank(
    server: ScriptedServer, verb: str, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "refused").mkdir()
    taken = tried(verb, server, f"{KEY}\n", tmp_path / "taken")
    asked = [request.headers["Authorization"] for request in server.requests]
    assert asked, taken
    assert set(asked) == {f"Bearer {KEY}"}

    refused = tried(verb, server, f"{KEY} {KEY}", tmp_path / "refused")
    assert (refused.code, len(server.requests)) == (2, len(asked)), "nothing is sent"
    assert "there is a blank in it" in refused.err
    seen = taken.out + taken.err + refused.out + refused.err
    assert "planted" not in seen
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".key"]
    assert not [path for path in files if b"planted" in path.read_bytes()]


def test_python_takes_and_refuses_the_same(server: ScriptedServer, tmp_path: Path) -> None:
    assert tt.verify(server.base_url, key=f"{KEY}\n").passed is not None
    assert server.requests[-1].headers["Authorization"] == f"Bearer {KEY}"
    with pytest.raises(ParamsError, match="a line break"):
        tt.verify(server.base_url, key=f"{KEY}\n{KEY}")
    with pytest.raises(ParamsError, match="a blank"):
        attach("mine", server.base_url, workspace=tmp_path, key=f"{KEY} {KEY}")
    with pytest.raises(ParamsError, match="a blank"):
        http_get(f"{server.base_url}/models", key=f"{KEY} {KEY}")


def test_the_file_of_a_servers_key_may_have_been_edited(tmp_path: Path) -> None:
    started = launch(simulated(), workspace=tmp_path).wait_ready()
    file, registry = Path(started.record.key_file), Registry(tmp_path)
    try:
        key = registry.key(started.record)
        file.write_text(f'\n"{key}"\r\n')
        assert registry.key(started.record) == key
        for damaged in (f"{key} {key}".encode(), b"\xff\xfe\x00", b"\0" * 40):
            file.write_bytes(damaged)
            with pytest.raises(ServerError, match="cannot be read") as refused:
                registry.key(started.record)
            assert key not in str(refused.value)
        file.write_text(key)
    finally:
        started.stop(term_s=1)


def test_a_simulated_server_asks_for_the_key_that_is_meant(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tautools", "simulate", "--port", "0"]
    with subprocess.Popen(
        words, env={**os.environ, "VLLM_API_KEY": f"{KEY}\n"}, stdout=subprocess.PIPE, text=True
    ) as it:
        try:
            line = next(line for line in it.stdout or () if line.startswith("Base URL:"))
            base_url = line.split()[2]
            assert http_get(f"{base_url}/models", key=KEY).status == 200
            assert http_get(f"{base_url}/models", key="other-key").status == 401
        finally:
            it.terminate()


def test_the_hubs_token(tmp_path: Path) -> None:
    with small_hub({"org/m": model_files()}) as hub:
        environ = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "HF_TOKEN": f"hf_{KEY}\n"}
        assert check_weights("org/m", environ=environ).hub.state == "there"
        with pytest.raises(ParamsError, match="The key in HF_TOKEN cannot be used: there is a blank"):
            check_weights("org/m", environ=environ | {"HF_TOKEN": f"hf_{KEY} x"})
        (tmp_path / "token").write_text(f"{KEY}\n\n{KEY}")
        with pytest.raises(ParamsError, match="token cannot be used: there is a line break"):
            check_weights("org/m", environ=environ | {"HF_TOKEN": ""})


def test_a_key_has_no_place_in_params_that_are_recorded(tmp_path: Path) -> None:
    flags = {"env": "retail", "agent.model": "M"}
    with pytest.raises(ParamsError, match="api_key_env") as refused:
        resolve_run(flags, workspace=tmp_path, overrides=["agent.extra_body={api_key: planted0planted}"])
    assert "planted" not in str(refused.value)
    resolve_run(flags, workspace=tmp_path, overrides=["agent.extra_body={stop_token_ids: [1, 2]}"])
    for words in (("server", "test"), ("server", "attach", "mine")):
        told = typed(*words, "http://me:planted@127.0.0.1:9/v1", "--workspace", str(tmp_path))
        assert (told.code, "planted" in told.out + told.err) == (2, False)
        assert "must not contain a user or a password" in told.err


LEAKS = {
    "a key that was read": f"Illegal header value b'Bearer {KEY}'",
    "quoted as in an address": "https://x/?a=Zx81-planted%2Fkey%2Bof%3Dnobody",
    "of a variable": "the provider says: no such key as plain-words-of-a-key-in-a-variable",
    "in an address": "http://me:planted@host:80/v1 is closed",
    "in a query": "GET https://x/models?alt=sse&key=planted0planted",
    "in a header": "{'authorization': 'bearer planted0planted0'}",
    "of a name and a password": "Authorization: Basic bWU6planted0planted==",
    "given to a name": "non-default args: {'api_key': ['planted0planted'], 'model': 'm'}",
    "of the usual form": "Incorrect API key provided: sk-planted0planted0planted0",
}


@pytest.mark.parametrize("kind", LEAKS)
def test_no_foreign_text_shows_a_key(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "plain-words-of-a-key-in-a-variable\n")
    read_key(KEY, "a test")
    for text in (redacted(LEAKS[kind]), str(TautoolsError("It broke.", evidence=LEAKS[kind], next_step="Look."))):
        assert "planted" not in text
        assert "plain-words" not in text
        assert "(hidden)" in text


def test_what_a_servers_log_shows_has_no_key_in_it(tmp_path: Path) -> None:
    started = launch(simulated(), workspace=tmp_path).wait_ready()
    try:
        key = Registry(tmp_path).key(started.record)
        with Path(started.record.log_err).open("a") as log:
            log.write(f"Unauthorized: hf_{'Pl4nted' * 5}\nargs: {{'api_key': ['{key}']}}\nthe last line\n")
        shown = typed("server", "logs", "sim", "--workspace", str(tmp_path))
        seen = shown.out + "\n".join(started.tail())
    finally:
        started.stop(term_s=1)
    assert "the last line" in shown.out
    assert "Pl4nted" not in seen
    assert key not in "\n".join(started.tail())


def test_ordinary_words_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_TOKEN", "4096")
    monkeypatch.setenv("SSH_KEY", "/home/me/.ssh/id")
    for placeholder in ("EMPTY", "none", "k"):
        read_key(placeholder, "a test")
    assert redacted("api_key_env: MY_KEY, `api_key_env` (--key-env MY_KEY)").count("MY_KEY") == 2
    text = "none of 4096 tokens in /home/me/.ssh/id; Bearer authentication is EMPTY; hf_transfer, sk-learn, k"
    assert redacted(text) == text


async def test_what_the_http_libraries_quote_is_not_shown(server: ScriptedServer) -> None:
    """Both libraries put a header that they refuse, or the address, into their errors."""
    async with httpx.AsyncClient(trust_env=False) as bare:
        with pytest.raises(httpx.LocalProtocolError, match="planted"):
            await bare.get(server.base_url, headers={"Authorization": f"Bearer {KEY}\n"})
    for address in ("http://me:Zx81-planted@127.0.0.1:9/v1", "http://planted:planted0planted@no such host/v1"):
        with pytest.raises(ModelCallError) as short:
            http_get(address)
        with pytest.raises(ModelCallError) as streamed:
            async with StreamHttp() as http, http.post(address, b"{}"):
                pass
        for error in (short.value, streamed.value):
            assert "planted" not in "".join(traceback.format_exception(error)) + repr(error.__dict__)
