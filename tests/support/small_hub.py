"""A hub of models on this machine: a real HTTP server with the addresses that the hub's client asks."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def safetensors(size: int = 64) -> bytes:
    """Return a file of weights: one tensor of `size` bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\1" * size


def model_files(shards: int = 2) -> dict[str, bytes]:
    """Return the files of a small model, with copies in formats that no server loads."""
    names = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    index = {"weight_map": {f"layer.{number}": name for number, name in enumerate(names)}}
    return {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        **{name: safetensors() for name in names},
        "pytorch_model.bin": b"x" * 1000,
        "original/consolidated.00.pth": b"x" * 1000,
    }


class Hub(BaseHTTPRequestHandler):
    """Answers for the models that it is given."""

    models: ClassVar[dict[str, dict[str, bytes]]]
    gated: ClassVar[set[str]]
    sizes: ClassVar[dict[str, int]]
    asked: ClassVar[list[str]]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.asked.append(path)
        if path.startswith("api/models/"):
            words = path.removeprefix("api/models/").split("/")
            self._info("/".join(words[:2]), words[2:])
        else:
            words = path.split("/")
            self._file("/".join(words[:2]), "/".join(words[4:]))

    def _info(self, model: str, rest: list[str]) -> None:
        if model not in self.models:
            self._refuse(401, "RepoNotFound")
        elif rest == ["auth-check"]:
            self._refuse(403, "GatedRepo") if model in self.gated else self._send(200, b"{}")
        elif rest[:1] == ["tree"]:
            files = self.models[model]
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": _sha(data)} for name, data in files.items()
            ]
            self._send(200, json.dumps(tree).encode())
        else:
            files = self.models[model]
            siblings = [
                {"rfilename": name, "size": self.sizes.get(name, len(data)), "blobId": _sha(data)}
                for name, data in files.items()
            ]
            told = {"id": model, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            self._send(200, json.dumps(told | {"gated": "auto" if model in self.gated else False}).encode())

    def _file(self, model: str, name: str) -> None:
        data = self.models.get(model, {}).get(name)
        if data is None:
            self._refuse(404, "EntryNotFound")
        else:
            self._send(200, data, {"ETag": f'"{_sha(data)}"', "X-Repo-Commit": COMMIT})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": f"{code} of the test"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def small_hub(models: dict[str, dict[str, bytes]], *, gated: set[str] | None = None) -> Iterator[type[Hub]]:
    """Serve `models` (files by name, by model id) and give the class that answers, with its `address`."""

    class Mine(Hub):
        address: ClassVar[str]

    Mine.models, Mine.gated, Mine.sizes, Mine.asked = models, gated or set(), {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Mine) as server:
        Mine.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Mine
        finally:
            server.shutdown()
            thread.join()


def _sha(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
