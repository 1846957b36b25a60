"""The server's metrics under vLLM's names, in Prometheus' text format."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

# Bucket bounds of vLLM 0.32 [s].
_TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
           2560)  # fmt: skip
_ITL_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_REQUEST_S = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_HISTOGRAMS = {
    "time_to_first_token": _TTFT_S,
    "inter_token_latency": _ITL_S,
    "e2e_request_latency": _REQUEST_S,
    "request_decode_time": _REQUEST_S,
}
_REASONS = ("stop", "length", "abort", "error", "repetition")


class PrometheusHistogram:
    """Counts of observations by bucket, with their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """Yield the histogram's lines: cumulative buckets, sum, count."""
        totals = list(accumulate(self.counts))
        for bound, total in zip([*map(str, map(float, self.bounds)), "+Inf"], totals, strict=True):
            yield f'{name}_bucket{{{labels},le="{bound}"}} {total}'
        yield f"{name}_sum{{{labels}}} {self.sum}"
        yield f"{name}_count{{{labels}}} {totals[-1]}"


class SimulatedMetrics:
    """What the server counts."""

    def __init__(self, model: str, kv_capacity_tokens: int) -> None:
        self.model = model
        self.kv_capacity_tokens = kv_capacity_tokens
        self.running = 0
        self.running_tokens = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generation_tokens = 0
        self.finished: Counter[str] = Counter()
        self._histograms = {name: PrometheusHistogram(bounds) for name, bounds in _HISTOGRAMS.items()}

    def admitted(self, prompt_tokens: int, cached_tokens: int) -> None:
        """Count a request that was taken in."""
        self.running += 1
        self.running_tokens += prompt_tokens
        self.prompt_tokens += prompt_tokens
        self.cached_tokens += cached_tokens

    def ended(self, prompt_tokens: int, sent_at_s: Sequence[float], reason: str) -> None:
        """Count a request that has ended; `sent_at_s` says when each token was sent, from the request's arrival."""
        self.running -= 1
        self.running_tokens -= prompt_tokens
        self.generation_tokens += len(sent_at_s)
        self.finished[reason] += 1
        if not sent_at_s:
            return
        self._histograms["time_to_first_token"].observe(sent_at_s[0])
        self._histograms["e2e_request_latency"].observe(sent_at_s[-1])
        self._histograms["request_decode_time"].observe(sent_at_s[-1] - sent_at_s[0])
        for former, later in pairwise(sent_at_s):
            self._histograms["inter_token_latency"].observe(later - former)

    def text(self, version: str) -> str:
        """Return everything as Prometheus reads it; the first line carries the version, which is marked."""
        return "\n".join([f"# {version}: no model stands behind these figures.", *self._lines()]) + "\n"

    def _lines(self) -> Iterator[str]:
        model = self.model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        labels = f'engine="0",model_name="{model}"'
        usage = min(1.0, self.running_tokens / self.kv_capacity_tokens)
        plain: list[tuple[str, str, str, float]] = [
            ("tautools_simulated", "gauge", "1: no model stands behind these figures.", 1),
            ("vllm:num_requests_running", "gauge", "Requests being answered.", self.running),
            ("vllm:num_requests_waiting", "gauge", "Requests waiting: none, all are answered at once.", 0),
            ("vllm:kv_cache_usage_perc", "gauge", "Share of the KV cache in use; 1 is full.", usage),
            ("vllm:prefix_cache_queries_total", "counter", "Prompt tokens looked up.", self.prompt_tokens),
            ("vllm:prefix_cache_hits_total", "counter", "Prompt tokens found.", self.cached_tokens),
            ("vllm:prompt_tokens_total", "counter", "Prompt tokens.", self.prompt_tokens),
            ("vllm:prompt_tokens_cached_total", "counter", "Prompt tokens not computed again.", self.cached_tokens),
            ("vllm:generation_tokens_total", "counter", "Tokens sent.", self.generation_tokens),
            ("vllm:num_preemptions_total", "counter", "Requests put back: never.", 0),
        ]
        for name, kind, text, value in plain:
            yield from (f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name}{{{labels}}} {value}")
        yield "# HELP vllm:request_success_total Requests finished, by reason."
        yield "# TYPE vllm:request_success_total counter"
        for reason in _REASONS:
            yield f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {self.finished[reason]}'
        for name, histogram in self._histograms.items():
            yield f"# TYPE vllm:{name}_seconds histogram"
            yield from histogram.lines(f"vllm:{name}_seconds", labels)
