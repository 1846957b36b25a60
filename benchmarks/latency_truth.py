"""Whether the latencies that the client measures are the server's own: both, beside each other, at several loads.

    python benchmarks/latency_truth.py http://127.0.0.1:8000/v1 --concurrency 1 4 16

The same requests as a run's are sent through `ModelClient`; the histograms of the server's `/metrics` are read before
and after, so nothing else may ask the server meanwhile. A row says `no` where the client's mean TTFT is off by more
than 5 % and 30 ms, or its TPOT by more than 2 %; then the exit status is 1. TPOT is weighted by tokens on both sides:
the sum of decode times over the number of steps, which is the mean of `vllm:inter_token_latency_seconds`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tautools.http import http_get
from tautools.llm import ModelClient, Retry
from tautools.llm.types import CallTag, Endpoint
from tautools.records import CallRecord, ModelConfig, Role, Sampling

TTFT_SHARE, TTFT_S, TPOT_SHARE = 0.05, 0.030, 0.02
_HISTOGRAM = re.compile(r"^vllm:(\w+_seconds)_(sum|count)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_TTFT, _ITL, _PREFILL = "time_to_first_token_seconds", "inter_token_latency_seconds", "request_prefill_time_seconds"
_WORDS = "Customer {number} asks: where is my order, and why was it late? Answer in two or three sentences. "


@dataclass(frozen=True)
class Compared:
    """One load: means by the client and by the server [s]."""

    concurrency: int
    requests: int
    ttft_s: float
    server_ttft_s: float
    tpot_s: float
    server_tpot_s: float
    prefill_s: float | None
    """Mean of the server's per-request times, which it calls time to first token; None when it sends none."""
    server_prefill_s: float

    @property
    def ttft_holds(self) -> bool:
        """Whether mean TTFT is within 5 % or 30 ms of the server's."""
        return abs(self.ttft_s - self.server_ttft_s) <= max(TTFT_SHARE * self.server_ttft_s, TTFT_S)

    @property
    def tpot_holds(self) -> bool:
        """Whether TPOT is within 2 % of the server's."""
        return abs(self.tpot_s / self.server_tpot_s - 1) <= TPOT_SHARE

    def __str__(self) -> str:
        prefill = "-" if self.prefill_s is None else f"{1000 * self.prefill_s:.1f}"
        return (
            f"{self.concurrency:11d} {self.requests:8d}  {1000 * self.ttft_s:9.1f} {1000 * self.server_ttft_s:9.1f} "
            f"{'yes' if self.ttft_holds else 'no':>5}  {1000 * self.tpot_s:9.2f} {1000 * self.server_tpot_s:9.2f} "
            f"{100 * (self.tpot_s / self.server_tpot_s - 1):+6.2f} % {'yes' if self.tpot_holds else 'no':>5}  "
            f"{prefill:>9} {1000 * self.server_prefill_s:9.1f}"
        )


HEAD = (
    "concurrency requests  TTFT [ms]   server's  holds  TPOT [ms]  server's             holds  "
    'per-request "TTFT" [ms]  its prefill histogram'
)


def histograms(endpoint: Endpoint) -> dict[str, tuple[float, float]]:
    """Return sum [s] and count of each of the server's time histograms, by vLLM's names without `vllm:`."""
    text = http_get(f"{endpoint.base_url.removesuffix('/v1')}/metrics", key=endpoint.key).text
    seen: dict[str, dict[str, float]] = {}
    for name, part, value in _HISTOGRAM.findall(text):
        parts = seen.setdefault(name, {"sum": 0.0, "count": 0.0})
        parts[part] += float(value)  # summed over engines
    return {name: (parts["sum"], parts["count"]) for name, parts in seen.items()}


async def ask(endpoint: Endpoint, concurrency: int, requests: int, tokens: tuple[int, int]) -> list[CallRecord]:
    """Ask that many times, so many at once, for at least and at most so many tokens; return the records."""
    records: list[CallRecord] = []
    least, most = tokens
    sampling = Sampling(temperature=0.7, max_tokens=most, extra_body={"min_tokens": least} if least else {})
    config = ModelConfig(model=endpoint.model, sampling=sampling)
    async with ModelClient(
        lambda _: [endpoint],
        {"agent": config},
        on_call=records.append,
        retry=Retry(attempts=1),
        max_in_flight=concurrency,
    ) as client:
        prompts = [(_WORDS.format(number=number) * 8) for number in range(requests)]
        await asyncio.gather(
            *(
                client.complete(CallTag(role=Role.AGENT, seed=seed), [{"role": "user", "content": prompt}])
                for seed, prompt in enumerate(prompts)
            )
        )
    return records


async def compare(endpoint: Endpoint, concurrency: int, requests: int, tokens: tuple[int, int] = (0, 48)) -> Compared:
    """Send requests at one load and return the client's means beside those of the server's histograms."""
    before = histograms(endpoint)
    records = await ask(endpoint, concurrency, requests, tokens)
    after = histograms(endpoint)

    def mean(name: str) -> float:
        (former, count), (latter, more) = before.get(name, (0.0, 0.0)), after[name]
        return (latter - former) / (more - count)

    timed = [call for call in records if call.ttft_s is not None and (call.output_tokens or 0) > 1]
    prefills = [call.server_prefill_s for call in records if call.server_prefill_s is not None]
    steps = sum((call.output_tokens or 0) - 1 for call in timed)
    return Compared(
        concurrency,
        len(records),
        sum(call.ttft_s or 0.0 for call in timed) / len(timed),
        mean(_TTFT),
        sum(call.decode_s or 0.0 for call in timed) / steps,
        mean(_ITL),
        sum(prefills) / len(prefills) if prefills else None,
        mean(_PREFILL),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 1 when a figure is off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="base URL, ending in /v1")
    parser.add_argument("--model", help="served model name; by default the first that the server lists")
    parser.add_argument("--key-env", default="OPENAI_API_KEY", help="variable that holds the key")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, default=32, help="requests at each concurrency")
    parser.add_argument("--min-tokens", type=int, default=16, help="0: not sent; only vLLM knows it")
    parser.add_argument("--max-tokens", type=int, default=48)
    options = parser.parse_args(argv)
    key = os.environ.get(options.key_env, "")
    models = http_get(f"{options.url}/models", key=key).json()["data"]
    endpoint = Endpoint(options.url, options.model or models[0]["id"], key=key)
    asyncio.run(ask(endpoint, 2, 4, (0, 8)))  # a cold server's first requests are not what is compared
    print(HEAD)
    rows = []
    for concurrency in options.concurrency:
        tokens = (options.min_tokens, options.max_tokens)
        rows.append(asyncio.run(compare(endpoint, concurrency, options.requests, tokens)))
        print(rows[-1], flush=True)
    return 0 if all(row.ttft_holds and row.tpot_holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
