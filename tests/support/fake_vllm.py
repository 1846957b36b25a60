"""Stands in for `vllm serve` as a real process: its flags, its log lines, its answers, and its ways to fail.

    python fake_vllm.py MODEL --host H --port P --served-model-name NAME ALIAS [...]

The environment variable FAKE_VLLM holds words that change what it does; see `MODES`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

MODES = {
    "dies": "the engine fails, and the last line is the wrapper that vLLM prints",
    "small_cache": "fails as the engine does when the KV cache holds 2048 tokens and more are asked for",
    "exits": "ends at once with status 3 and no word",
    "hangs": "writes a few lines and then nothing, and never serves",
    "deaf": "ignores SIGTERM",
    "deaf_once": "ignores the first SIGTERM",
    "worker": "starts a worker process, which outlives it",
    "open": "takes any key",
    "other_model": "serves another model than it was asked to",
    "no_alias": "does not serve the second name",
    "short": "serves a shorter context than it was asked to",
    "no_tools": "has no tool parser",
    "wrong_parser": "leaves tool calls in the text",
    "blind": "its chat template leaves tools out",
    "cuts_calls": "ends every call at its longest answer, before the call is whole",
    "bad_calls": "gives arguments that are no object",
    "no_seeds": "ends when a request has a seed, no temperature and a prompt of more than a chunk",
    "slow": "takes a while for each answer",
    "no_list": "has no list of models, as slime's adapter has none",
    "empty": "answers nothing; with `thinks` beside, it only thinks",
    "reuse_port": "binds as vLLM does, beside others",
    "port_lost": "finds its port taken, the first time",
    "inner_port_lost": "finds a port of its own processes taken, the first time",
    "ready_then_dies": "says that it is ready, and ends",
    "thinks": "thinks before it answers, in the field for it",
    "thinks_aloud": "thinks in its text",
    "moody": "answers the same question in other words each time",
    "crowded": "bears no more than four requests at once",
    "cuts": "answers prompts of any length",
    "breaks": "answers 500 to a prompt that is too long",
}

WORKER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def main() -> None:
    given, modes = arguments(), set(os.environ.get("FAKE_VLLM", "").split())
    unknown = modes - MODES.keys()
    if unknown:
        sys.exit(f"unknown modes {unknown}")
    if "exits" in modes:
        sys.exit(3)
    if "deaf" in modes:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif "deaf_once" in modes:
        signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    say("(APIServer pid=1) INFO 01-01 00:00:00 [utils.py:1] vLLM API server version 0.0-fake")
    if "worker" in modes:
        subprocess.Popen([sys.executable, "-c", WORKER])
    say("(EngineCore pid=2) INFO 01-01 00:00:00 [core.py:1] Initializing a V1 LLM engine (v0.0-fake)")
    if "small_cache" in modes and given.max_model_len > 2048:
        say(
            "(EngineCore pid=2) ERROR 01-01 00:00:00 [core.py:1] ValueError: To serve at least one request with the "
            "model's max seq len (4096), 2.0 GiB KV cache is needed, which is larger than the available KV cache "
            "memory (1.0 GiB). Based on the available memory, the estimated maximum model length is 2048."
        )
        sys.exit("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    if "dies" in modes:
        say("(EngineCore pid=2) ERROR 01-01 00:00:00 [core.py:1] Traceback (most recent call last):")
        say(
            "(EngineCore pid=2) ERROR 01-01 00:00:00 [core.py:1] ValueError: To serve at least one request with the "
            "model's max seq len (40960), 9.0 GiB KV cache is needed"
        )
        sys.exit("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    if "hangs" in modes:
        time.sleep(600)
    say("Loading safetensors checkpoint shards:  50% Completed | 1/2")
    time.sleep(float(os.environ.get("FAKE_VLLM_LOAD_S", "0.2")))
    if "ready_then_dies" in modes:
        say("INFO:     Application startup complete.")
        sys.exit(1)
    serve(given, modes)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("vllm")
    parser.add_argument("model")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--max-model-len", type=int, default=4096)
    parser.add_argument("--enable-auto-tool-choice", action="store_true")
    parser.add_argument("--tool-call-parser")
    parser.add_argument("--default-chat-template-kwargs", type=json.loads, default={})
    parser.add_argument("--tensor-parallel-size", type=int)
    parser.add_argument("--max-num-batched-tokens", type=int)
    return parser.parse_args()


def say(line: str) -> None:
    print(line, flush=True)


def serve(given: argparse.Namespace, modes: set[str]) -> None:
    Answers.modes, Answers.given = modes, given
    Answers.key = os.environ.get("VLLM_API_KEY", "")
    lost = Path(os.environ.get("FAKE_VLLM_LOST", ""))
    if "inner_port_lost" in modes and not lost.exists():
        lost.touch()
        sys.exit("torch.distributed.DistNetworkError: The server socket has failed to listen. name: EADDRINUSE")
    if "port_lost" in modes and not lost.exists():
        lost.touch()
        sys.exit("OSError: [Errno 98] Address already in use")
    ThreadingHTTPServer.request_queue_size = 64
    server = ThreadingHTTPServer((given.host, given.port), Answers, bind_and_activate=False)
    if "reuse_port" in modes:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.server_bind()
    server.server_activate()
    say("INFO:     Application startup complete.")
    server.serve_forever()


class Answers(BaseHTTPRequestHandler):
    modes: ClassVar[set[str]]
    given: ClassVar[argparse.Namespace]
    key: ClassVar[str]
    running: ClassVar[list[int]] = []
    lock: ClassVar[threading.Lock] = threading.Lock()
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/health":
            self.send(200, "")
        elif self.path == "/version":
            self.send(200, {"version": "0.0-fake"})
        elif not self.allowed():
            self.send(401, {"error": "Unauthorized"})
        else:
            entries = {"object": "list", "data": [self.entry(name) for name in self.names()]}
            self.send(200, {"ok": True} if "no_list" in self.modes else entries)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            self.running.append(1)
        try:
            self.answer(body)
        finally:
            with self.lock:
                self.running.pop()

    def answer(self, body: dict[str, Any]) -> None:
        tokens = 5 + sum(len(str(message.get("content")).split()) for message in body["messages"])
        if "blind" not in self.modes:
            tokens += len(json.dumps(body.get("tools") or "").split())
        limit = self.given.max_model_len
        if self.modes & {"crowded", "slow"}:
            time.sleep(0.3)
        if not self.allowed():
            self.send(401, {"error": "Unauthorized"})
        elif "crowded" in self.modes and len(self.running) > 4:
            self.send(503, {"error": {"message": "Too many requests at once.", "code": 503}})
        elif tokens + body.get("max_tokens", 1) > limit and "cuts" not in self.modes:
            message = f"This model's maximum context length is {limit} tokens. However, your prompt contains {tokens}."
            status = 500 if "breaks" in self.modes else 400
            self.send(status, {"error": {"message": message, "type": "BadRequestError", "code": status}})
        elif "tools" in body and ("no_tools" in self.modes or not self.given.tool_call_parser):
            message = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
            self.send(400, {"error": {"message": message, "type": "BadRequestError", "code": 400}})
        elif "no_seeds" in self.modes and self.cannot_seed(body, tokens):
            say("(EngineCore pid=2) ERROR 01-01 00:00:00 [core.py:1] RuntimeError: CPU Generator does not use offset")
            os._exit(1)
        elif body.get("stream"):
            self.stream(self.delta(body), tokens)
        else:
            message = {"role": "assistant", **self.delta(body)}
            self.send(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def cannot_seed(self, body: dict[str, Any], tokens: int) -> bool:
        chunked = "crash" in body or tokens > (self.given.max_num_batched_tokens or 2048)
        return chunked and "seed" in body and "temperature" not in body

    def allowed(self) -> bool:
        return "open" in self.modes or self.headers.get("Authorization") == f"Bearer {self.key}"

    def names(self) -> list[str]:
        names = list(self.given.served_model_name)
        if "other_model" in self.modes:
            names[0] = "some-other-model"
        return names[:1] if "no_alias" in self.modes else names

    def entry(self, name: str) -> dict[str, Any]:
        length = self.given.max_model_len - (1000 if "short" in self.modes else 0)
        return {"id": name, "object": "model", "owned_by": "vllm", "max_model_len": length}

    def delta(self, body: dict[str, Any]) -> dict[str, Any]:
        if "empty" in self.modes:
            return {"content": ""} | ({"reasoning": "Let me see."} if "thinks" in self.modes else {})
        if "tools" not in body or body["messages"][-1]["role"] == "tool":
            return self.words()
        name = body["tools"][0]["function"]["name"]
        if "wrong_parser" in self.modes and body.get("tool_choice") != "required":
            return {"content": f'<tool_call>{{"name": "{name}", "arguments": {{}}}}</tool_call>'}
        arguments = (
            '{"order' if "cuts_calls" in self.modes else '"1"' if "bad_calls" in self.modes else '{"order_id": "1"}'
        )
        call = {"index": 0, "id": "call-1", "type": "function", "function": {"name": name, "arguments": arguments}}
        return {"tool_calls": [call]}

    def words(self) -> dict[str, Any]:
        if "thinks_aloud" in self.modes:
            return {"content": "<think>Let me see.</think>Ready."}
        if "moody" in self.modes:
            return {"content": f"Ready at {time.monotonic_ns()}."}
        return {"content": "Ready."} | ({"reasoning": "Let me see."} if "thinks" in self.modes else {})

    def stream(self, delta: dict[str, Any], tokens: int) -> None:
        finish = "tool_calls" if "tool_calls" in delta else "stop"
        finish = "length" if "cuts_calls" in self.modes and finish == "tool_calls" else finish
        usage = {"prompt_tokens": tokens, "completion_tokens": 2, "total_tokens": tokens + 2}
        chunks = [
            {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
            {"choices": [], "usage": usage},
        ]
        shared = {"id": "chat-1", "object": "chat.completion.chunk", "model": self.given.served_model_name[0]}
        text = "".join(f"data: {json.dumps(shared | chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        self.send(200, text, kind="text/event-stream")

    def send(self, status: int, body: Any, kind: str = "application/json") -> None:
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


if __name__ == "__main__":
    main()
