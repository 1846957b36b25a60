"""Weights are found in a real cache layout, compared with a hub that answers, and fetched from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import called, typed
from hypothesis import given
from hypothesis import strategies as st
from small_hub import COMMIT, model_files, safetensors, small_hub

from tautools.errors import ParamsError, ServerError
from tautools.servers.model_cache import cache_folder, check_model_id, local_weights
from tautools.servers.weights import check_weights, fetch_weights

MODEL = "Qwen/Qwen3-8B"


def cached(home: Path, model: str = MODEL, files: dict[str, bytes] | None = None) -> Path:
    """Lay a model out as the hub's client does: blobs, and a snapshot of links to them."""
    repo = home / "hub" / f"models--{model.replace('/', '--')}"
    snapshot = repo / "snapshots" / COMMIT
    for folder in (repo / "blobs", repo / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (repo / "refs" / "main").write_text(COMMIT)
    for number, (name, data) in enumerate((files or model_files()).items()):
        if "/" not in name:
            (repo / "blobs" / f"blob{number}").write_bytes(data)
            (snapshot / name).symlink_to(Path("../../blobs") / f"blob{number}")
    return snapshot


def offline(home: Path) -> dict[str, str]:
    return {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def test_a_cached_model_is_complete_without_asking_anybody(tmp_path: Path) -> None:
    snapshot = cached(tmp_path)
    found = check_weights(MODEL, environ=offline(tmp_path))

    assert (found.state, found.usable) == ("complete", True)
    assert found.copy is not None
    assert found.copy.folder == snapshot
    assert str(snapshot) in str(found)


@pytest.mark.parametrize("spoil", ["remove", "shorten", "damage", "dangle", "config", "tokenizer"])
def test_an_incomplete_copy_is_reported_with_the_file(tmp_path: Path, spoil: str) -> None:
    snapshot = cached(tmp_path)
    name = {"config": "config.json", "tokenizer": "tokenizer.json"}.get(spoil, "model-00002-of-00002.safetensors")
    path = snapshot / name
    if spoil == "shorten":
        path.write_bytes(path.read_bytes()[:-1])
    elif spoil == "damage":
        path.write_bytes(b"\xff" * 200)
    elif spoil == "dangle":
        path.resolve().unlink()
    else:
        path.unlink()
    found = check_weights(MODEL, environ=offline(tmp_path))

    assert (found.state, found.usable) == ("incomplete", False)
    assert found.copy is not None
    (missing,) = found.copy.missing
    assert name in missing or spoil == "tokenizer"
    assert "tautools model fetch" in str(found)


def test_a_download_that_was_broken_off_is_reported(tmp_path: Path) -> None:
    snapshot = cached(tmp_path)
    (snapshot / "model-00001-of-00002.safetensors").unlink()
    (snapshot.parents[1] / "blobs" / "abc.incomplete").write_bytes(b"half")

    assert "1 downloads that were broken off" in str(check_weights(MODEL, environ=offline(tmp_path)))


def test_offline_it_is_said_what_cannot_be_known(tmp_path: Path) -> None:
    found = check_weights("Qwen/Qwen3-8B-Instruct-2507", environ=offline(tmp_path))

    assert (found.state, found.usable) == ("offline", False)
    assert "whether the hub has it is not known: HF_HUB_OFFLINE is set" in str(found)
    assert "The 2507 release has no model of this size. Next: use Qwen/Qwen3-8B" in str(found)


def test_a_hub_that_does_not_answer_is_said(tmp_path: Path) -> None:
    found = check_weights(MODEL, environ={"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"})

    assert found.state == "silent"


def test_a_name_that_the_hub_has_not_is_said_with_the_one_that_it_has(tmp_path: Path) -> None:
    with small_hub({MODEL: model_files()}) as hub:
        environ = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address}
        found = check_weights("Qwen/Qwen3-8B-Instruct-2507", environ=environ)
        with pytest.raises(ServerError, match="cannot be fetched") as refused:
            fetch_weights("Qwen/Qwen3-8B-Instruct-2507", environ=environ)

    assert (found.state, found.near) == ("absent", MODEL)
    assert "not at the hub" in str(found)
    assert "use Qwen/Qwen3-8B, which is what exists" in refused.value.evidence
    assert list(tmp_path.iterdir()) == []


def test_a_gated_model_is_reported_with_what_to_do(tmp_path: Path) -> None:
    with small_hub({MODEL: model_files()}, gated={MODEL}) as hub:
        found = check_weights(MODEL, environ={"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address})

    assert found.state == "gated"
    assert "Accept its licence" in str(found)


def test_a_model_larger_than_the_disk_is_not_fetched(tmp_path: Path) -> None:
    with small_hub({MODEL: model_files()}) as hub:
        hub.sizes["model-00001-of-00002.safetensors"] = 2**60
        environ = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address}
        assert check_weights(MODEL, environ=environ).state == "no_room"
        with pytest.raises(ServerError, match="cannot be fetched") as refused:
            fetch_weights(MODEL, environ=environ)

    assert "NOT enough" in refused.value.evidence
    assert list(tmp_path.iterdir()) == []


def test_fetch_brings_what_a_server_loads_and_no_other_copies(tmp_path: Path) -> None:
    with small_hub({MODEL: model_files()}) as hub:
        env = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        words = ("model", "fetch", MODEL, "--json", "--workspace", str(tmp_path))
        done = typed(*words, env=env)
        assert done.code == 0, done.err
        asked = len(hub.asked)
        again = typed(*words, env=env | {"HF_HUB_OFFLINE": "1"})
        assert again.code == 0, again.err

    (data,) = json.loads(done.out)
    names = {path.name for path in Path(data["folder"]).iterdir()}
    assert data["state"] == "complete"
    assert "model-00002-of-00002.safetensors" in names
    assert not names & {"pytorch_model.bin", "original"}
    assert asked == len(hub.asked)


def test_fetch_goes_on_where_a_copy_is_not_whole(tmp_path: Path) -> None:
    with small_hub({MODEL: model_files()}) as hub:
        env = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        first = fetch_weights(MODEL, environ=env)
        assert first.copy is not None
        lost = first.copy.folder / "model-00001-of-00002.safetensors"
        lost.resolve().unlink()
        lost.unlink()
        before = check_weights(MODEL, environ=env)
        assert before.state == "fetchable"
        assert 0 < before.needed_bytes < before.hub.size_bytes if before.hub else False
        assert fetch_weights(MODEL, environ=env).usable


def test_a_folder_and_a_server_file_are_models_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    for name, data in {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": safetensors()}.items():
        (folder / name).write_bytes(data)
    cached(tmp_path / "hf")
    for name, value in offline(tmp_path / "hf").items():
        monkeypatch.setenv(name, value)

    done = called("model", "check", str(folder), "qwen3-8b", "--workspace", str(tmp_path))

    assert done.code == 0, done.err
    assert f"{folder}: complete" in done.out
    assert "Qwen/Qwen3-8B: complete" in done.out
    assert called("model", "check", "qwen3-32b", "--workspace", str(tmp_path)).code == 1


def test_an_index_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    files: dict[str, Any] = model_files()
    files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": "../../../secret", "b": 7}}).encode()
    snapshot = cached(tmp_path, files=files)
    copy = local_weights(MODEL, cache=tmp_path / "hub")

    assert copy is not None
    assert copy.folder == snapshot
    assert copy.missing == ("weights",)


@given(st.text(max_size=60))
def test_a_name_that_is_taken_can_only_be_a_folder_of_the_cache(name: str) -> None:
    try:
        checked = check_model_id(name)
    except ParamsError:
        return
    place = Path("/cache") / f"models--{checked.replace('/', '--')}"
    assert place.parent == Path("/cache")
    assert not set(checked) & set("\\ \n\r\t\0'\"$`;|&<>*?(){}[]~!#")
    assert not checked.startswith("-")


@pytest.mark.parametrize("name", ["../../etc/passwd", "$(id)", "a b", "x\ny", "-rf", "a/b/c", "a--b", "", ".hidden/x"])
def test_a_hostile_name_is_refused_and_nothing_is_asked(name: str, tmp_path: Path) -> None:
    with small_hub({}) as hub:
        environ = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address}
        for look in (check_weights, fetch_weights):
            with pytest.raises(ParamsError, match="neither a folder"):
                look(name, environ=environ)

    assert hub.asked == []


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HOME": "/h"}, "/h/.cache/huggingface/hub"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x", "HF_HOME": "/hf"}, "/hf/hub"),
        ({"HF_HOME": "/hf", "HUGGINGFACE_HUB_CACHE": "/old"}, "/old"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "/new"}, "/new"),
    ],
)
def test_the_cache_is_where_the_hubs_client_has_it(environ: dict[str, str], folder: str) -> None:
    assert str(cache_folder(environ)) == folder
