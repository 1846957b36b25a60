"""Read vLLM's log: its messages, how far a start is, and requests that met a cold shape.

A prefix is a row of marks, each by another program, in any order: vLLM's level, time and source (0.6 to 0.33, with a
year or not, Gaudi's fork too), its processes and Ray's (`(Worker_TP0 pid=12)`), `srun -l`, time stamps of docker,
Kubernetes and the journal, ranks of torchrun and mpirun, uvicorn's level, glog's. Each mark is an alternative of one
expression that is applied until none fits. A mark that is not known is learned from the `Traceback` line behind it.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal, TypeAlias

_COLOUR = re.compile(r"(?:\x1b|ESC|#033|\^\[|\\x1b|\\033|\\u001b)\[[0-9;?]*[A-Za-z]")


_MOST_CHARACTERS = 3000
"""Of a line; what is said behind them is no cause, and the patterns take long over a line of megabytes."""


def plain_lines(lines: Iterable[str]) -> list[str]:
    """Return the lines without colours and not too long, each redraw of a progress bar as a line of its own."""
    parts = (part[:_MOST_CHARACTERS] for line in lines for part in _COLOUR.sub("", line).split("\r"))
    return [part for part in parts if part.strip()]


_LEVEL = "TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|CRITICAL|FATAL"
_TIME = r"\[?(?:(?:\d{4}[-/])?\d\d[-/]\d\d(?:[-/]\d{4})?[T :])?\d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?Z| ?[+-]\d\d:?\d\d)?"
_FORMATS = (
    rf"(?:\s+\[\d+\])?\s+(?:[-|] )?(?:[\w.]+ - )?\[?(?P<timed>(?i:{_LEVEL}))\b(?!\s+\[?\d|:)\s*\]?(?:\s*[-|](?=\s))?"
    r"(?:\s+[\w./-]+:\d+ --|\s+[\w.]+:\w+:\d+ -|\s+\[[\w./-]+:\d+\])?"
)
"""What Python's usual formats put between the time and the message."""
_MARKS = {
    "vLLM: ERROR 12-01 10:00:00 [core.py:708], without brackets before 0.8": (
        rf"(?P<level>{_LEVEL})\s+{_TIME}\s*(?:\[[^\]]*\]|[\w./-]+:\d+\])[ \t]?"
    ),
    "processes of vLLM and Ray: (Worker_TP0 pid=12), (RayWorkerWrapper pid=11, ip=10.0.0.2), (raylet)": (
        r"\((?:(?P<who>[A-Za-z][^()=]*?)?[ ,]*(?:\b(?:pid|rank|ip|actor_id)=[^\s,()]+[ ,]*)+"
        r"|(?:raylet|gcs_server|autoscaler)[^()]*)\):?(?: \[repeated[^\]]*\])?[ \t]?"
    ),
    "Ray's core: [2025-12-01 10:00:00,123 E 12 34] (raylet) node_manager.cc:30:": (
        rf"{_TIME} (?P<core>[IWEFCD]) \d+ \d+\] (?:\([^()]*\) )?[\w./-]+:\d+:[ \t]?"
    ),
    "docker, Kubernetes, the journal's ISO form, Python's usual formats": (
        rf"{_TIME}\]?(?:[ \t]std(?:out|err) [FP])?(?: [\w.-]+ [\w./@-]+\[\d+\]:)?(?:{_FORMATS})?(?:[ \t]|$)"
    ),
    "the journal and syslog: Dec 01 10:00:00 gaudi001 vllm[123]:": (
        r"(?:<\d+>)?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?"
        r"(?: [\w.-]+ (?:[\w./@:-]+\[\d+\]|vllm|python[\d.]*|kernel|systemd|docker\w*):)?[ \t]?"
    ),
    "the kernel's own clock": (
        r"\[ *\d+\.\d+\][ \t]?|\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\][ \t]?"
    ),
    "glog and torch: [E1201 10:00:00.123 ProcessGroupNCCL.cpp:12]": (
        r"\[?(?P<glog>[IWEF])\d{3,4} \d\d:\d\d:\d\d[.\d]*\s+(?:\d+ )?[\w./-]+:\d+\][ \t]?"
    ),
    "uvicorn, which fills up to ten columns, and Python: ERROR:vllm.engine:": (
        rf"(?P<named>{_LEVEL}):(?:[\w.]+:| {{5}}(?<=INFO: {{5}})| {{4}}(?<=[A-Z]{{5}}: {{4}})|  (?<=WARNING:  )|[ \t]?)"
    ),
    "a level in brackets": rf"\[(?P<boxed>(?i:{_LEVEL}))\s*\]:?[ \t]?",
    "srun -l, torchrun, mpirun, kubectl --prefix, docker compose": (
        r"(?P<label> {0,5}\d{1,5}: |\[rank\d+\]:?[ \t]?|\[default\d+\]:|\[\d+,\d+\]<std(?:out|err)>:"
        r"|\[pod/[^\]]+\][ \t]?|\[(?!Rank)[\w.-]{1,60}:\d+\][ \t]?"
        r"|(?:\d+\|)?(?=\w)[\w.-]{0,60}(?:\d[\w.@-]{0,60} | {2})[ ]{0,40}\| )"
    ),
    "the rails of an exception group": r" {2,}\|(?: |$)| {2,}\+ (?=Exception Group)",
}
_MARK = re.compile("|".join(_MARKS.values()))
_KNOWN_MARK = re.compile(
    rf"(?:{_LEVEL})\s+{_TIME}\s+\[?[\w./-]+:\d+\]|\((?:\w*Worker|EngineCore|A[Pp][Ii]Server)\w*[^()=]*pid=\d"
)
"""A mark that is never a part of a message: what stands before it is a prefix, no matter which program wrote it."""
_REPEATED = re.compile(r" \[repeated \d+x across cluster\].*")
"""What Ray puts behind a line that several workers wrote."""
_LETTERS = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "FATAL", "C": "CRITICAL", "D": "DEBUG", "WARN": "WARNING"}
_QUIET = frozenset({"TRACE", "DEBUG", "INFO", "NOTICE", "WARNING"})
_WARNING = re.compile(r"(?:.{1,300}?:\d+: )?(?:\w{0,60}Warning|warning|WARNING): ")

Link: TypeAlias = Literal["", "cause", "handled"]

_TRACEBACK = "Traceback (most recent call last):"
_LINKS: Mapping[str, Link] = {"The above exception was the direct cause": "cause", "During handling": "handled"}
_SILENT = ("Exception ignored in", "--- Logging error ---")
"""What Python prints of an exception that stops nothing."""
_FRAME = re.compile(r'\s*File ["“]')
_ENDS = re.compile(r"[\w.]+(?:Error|Exception|Exit|Interrupt|Expired)\b")
"""How the last line of a traceback begins, where a copy of the log has lost what indents the frames."""
_IN_FRAMES = ("   ", "  [Previous line", "\t")
_NO_WORDS = re.compile(r"[\w.]+(?:Error|Exception):?$")
_MOST_LINES = 4


@dataclass(frozen=True, slots=True)
class LogMessage:
    """One message of a log, without its prefix."""

    text: str
    process: str = ""
    """Which of the server's processes wrote it, such as `EngineCore`; empty when it is unknown."""
    level: str = ""
    more: str = ""
    """Further lines of an exception that says nothing without them."""
    chain: int = 0
    """Number of the traceback chain that it ends a part of; 0 when it was not raised."""
    link: Link = ""
    """How it goes with the exception before it in its chain: that one caused it, or was being handled."""

    @property
    def quiet(self) -> bool:
        """Whether it says by itself that it is no error."""
        return self.level in _QUIET


@dataclass(frozen=True, slots=True)
class _Prefix:
    tag: str = ""
    """The marks that name the writer, without the times."""
    process: str = ""
    level: str = ""
    stamp: str = ""
    """vLLM's level, time and source: the lines of one message have the same."""


@dataclass(slots=True)
class _Writer:
    """Where in a traceback a writer is: those of several writers are mixed in one log."""

    in_frames: bool = False
    silent: bool = False
    code: str = ""
    flat: bool = False
    chain: int = 0
    link: Link = ""
    last: tuple[str, bool] | None = None
    """The exception whose message may go on."""
    stamp: str = ""
    """Of that exception's line."""

    def flat_code(self, words: str) -> bool:
        """Whether this is the code of a frame that has lost its indentation."""
        return self.flat and not _ENDS.match(words)


def read_messages(lines: Iterable[str]) -> list[LogMessage]:
    """Return the messages of a log in their order.

    Left out are frames and code of tracebacks (they quote the text of errors that were not raised), and errors that
    another worker has already written in the same words.
    """
    reader = _Reader()
    for line in plain_lines(each for raw in lines for each in _from_json(raw)):
        reader.read(line)
    return list(reader.messages.values())


class _Reader:
    def __init__(self) -> None:
        self.messages: dict[tuple[str, bool], LogMessage] = {}
        self._writers: dict[str, _Writer] = {}
        self._learned: dict[str, re.Pattern[str]] = {}
        self._chains = count(1)

    def read(self, line: str) -> None:
        text, prefix = self._without_prefix(line)
        writer = self._writers.setdefault(prefix.tag, _Writer())
        words = text.strip()
        if words.endswith(_TRACEBACK):
            self._begin(writer)
        elif not words or words.startswith(_SILENT):
            writer.silent, writer.last = bool(words), None
        elif link := next((link for start, link in _LINKS.items() if words.startswith(start)), None):
            writer.link, writer.in_frames, writer.last = link, False, None
        elif _FRAME.match(text) or (writer.in_frames and (text.startswith(_IN_FRAMES) or writer.flat_code(words))):
            if not (writer.in_frames or writer.link):
                writer.chain = next(self._chains)
            writer.in_frames, writer.last, writer.flat = True, None, text.startswith("File")
            writer.code = words if text.startswith("   ") and words.strip("^~ ") else writer.code
        else:
            self._message(writer, text, prefix)

    def _begin(self, writer: _Writer) -> None:
        writer.in_frames, writer.code, writer.last = True, "", None
        if not writer.link:
            writer.chain = next(self._chains)

    def _message(self, writer: _Writer, text: str, prefix: _Prefix) -> None:
        words = text.strip()
        if writer.in_frames or writer.link:  # without frames where the log was cut
            writer.chain = writer.chain or next(self._chains)
            level = "WARNING" if writer.silent else prefix.level
            more = f"at `{writer.code}`" if _NO_WORDS.match(words) and writer.code else ""
            message = LogMessage(words, prefix.process, level, more, writer.chain, writer.link)
            writer.in_frames, writer.silent, writer.link = False, False, ""
            writer.last, writer.stamp = self._add(message), prefix.stamp
            return
        level = prefix.level or ("WARNING" if _WARNING.match(words) else "")
        self._go_on(writer, text, prefix)
        self._add(LogMessage(words, prefix.process, level))

    def _go_on(self, writer: _Writer, text: str, prefix: _Prefix) -> None:
        """Join a line to the exception above it, where its stamp, or how one begins or ends, shows that it goes on."""
        head = self.messages.get(writer.last) if writer.last else None
        same = prefix.stamp == writer.stamp and (bool(prefix.stamp) or not (prefix.level or text[0].isupper()))
        if head and (same or text[0].isspace() or head.text.endswith(":")) and len(head.more) < 80 * _MOST_LINES:
            self.messages[head.text, head.quiet] = replace(head, more=f"{head.more} {text.strip()}".strip())
        else:
            writer.last = None

    def _add(self, message: LogMessage) -> tuple[str, bool]:
        key = (message.text, message.quiet)
        self.messages.setdefault(key, message)
        return key

    def _without_prefix(self, line: str) -> tuple[str, _Prefix]:
        line = _REPEATED.sub("", line)
        start, prefix = _read_marks(line)
        if _TRACEBACK in line[start + 1 : start + 120 + len(_TRACEBACK)]:
            self._learn(line[start:])
        for tag, learned in self._learned.items():
            if match := learned.match(line, start):
                start, inner = _read_marks(line, match.end())
                tags = f"{prefix.tag}{tag}{inner.tag}"
                prefix = _Prefix(tags, inner.process or prefix.process, inner.level or prefix.level, inner.stamp)
                break
        return line[start:], prefix

    def _learn(self, text: str) -> None:
        """Take what stands before a traceback as a mark, up to where known ones reach the traceback."""
        for match in re.finditer(r"[:|>)\]] ?", text[: text.index(_TRACEBACK)]):
            head = text[: match.end()]
            if "," not in head and text.startswith(_TRACEBACK, _read_marks(text, match.end())[0]):
                self._learned[re.sub(r"\d+", "0", head)] = re.compile(re.sub(r"\d+", r"\\d+", re.escape(head)))
                return


def _read_marks(line: str, start: int = 0) -> tuple[int, _Prefix]:
    """Return where the message begins, and what the marks before it say; the innermost level counts."""
    tag, process, level, stamp = "", "", "", ""
    while True:
        while (match := _MARK.match(line, start)) and match.end() > start:
            start, found = match.end(), match.groupdict()
            process = (found["who"] or "").strip() or process
            mark = next(
                (found[name] for name in ("level", "timed", "named", "boxed", "glog", "core") if found[name]), ""
            )
            level, stamp = _LETTERS.get(mark.upper(), mark.upper()) or level, match[0] if found["level"] else stamp
            tag += match[0].strip() if found["who"] or found["label"] or match[0].startswith("(") else ""
        known = _KNOWN_MARK.search(line, start, start + 160)
        if known is None:
            return start, _Prefix(tag, process, level, stamp)
        tag, start = tag + re.sub(r"\d+", "0", line[start : known.start()]), known.start()


def _from_json(line: str) -> Iterator[str]:
    """Return the lines of a record that docker or a JSON formatter wrote, with its level and process as a prefix."""
    if not line.startswith("{"):
        yield line
        return
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    text = (
        next((record[key] for key in ("log", "message", "msg", "MESSAGE", "text") if record.get(key)), None)
        if isinstance(record, dict)
        else None
    )
    if not isinstance(text, str):
        yield line
        return
    level, process = (
        record.get("levelname", record.get("level", record.get("severity", ""))),
        record.get("processName", ""),
    )
    prefix = (f"({process} pid=0) " if process else "") + (f"[{str(level).upper()}] " if level else "")
    for part in (text, record.get("exc_info")):
        yield from (prefix + each for each in str(part or "").splitlines())


@dataclass(frozen=True, slots=True)
class StartupStage:
    """What a starting server is doing, and how far the start is, in [0, 100]; progress only, the checks decide."""

    name: str
    percent: int


# In the order of a start: a line that opens a stage, and the per cent where the stage begins and ends; with a counter
# (`done` of `all`, or `share`) it moves in between. The warm-up counter is the Gaudi plugin's, most of a start there.
_STAGES = (
    (r"vLLM.* version|non-default args", "reading options", 3, 5),
    (r"Initializing a V\d LLM engine|Resolved architecture", "configuring the engine", 8, 10),
    (r"Starting to load model|Loading weights|Loading safetensors", "loading weights", 12, 12),
    (r"Loading [\w ]*checkpoint shards:\s+(?P<share>\d+)%", "loading weights", 12, 50),
    (r"Loading weights took|Model loading took", "weights loaded", 50, 50),
    (r"Dynamo bytecode transform|torch\.compile takes|Compiling a graph", "compiling", 55, 60),
    (r"Free device memory|GPU KV cache size|CPU KV cache|KV cache memory", "sizing the KV cache", 60, 60),
    (r"Generated \d+ (prompt|decode) buckets", "planning the warm-up", 62, 62),
    (r"\[Warmup\]\[[^\]]*[Pp]rompt[^\]]*\]\[(?P<done>\d+)/(?P<all>\d+)\]", "warming up prompts", 62, 77),
    (r"\[Warmup\]\[[^\]]*[Dd]ecode[^\]]*\]\[(?P<done>\d+)/(?P<all>\d+)\]", "warming up decoding", 77, 92),
    (r"Capturing (CUDA|cudagraph)[\w ()=,.-]*:\s+(?P<share>\d+)%", "capturing graphs", 62, 92),
    (r"Warmup finished|Graph capturing finished|init engine .* took", "warmed up", 93, 93),
    (r"Starting vLLM (API )?server", "opening the API", 96, 96),
    (r"Application startup complete", "answering soon", 99, 99),
)


def read_startup_stage(lines: Iterable[str]) -> StartupStage:
    """Return the furthest stage that the log shows; lines may come from several files in any order."""
    furthest = StartupStage("starting the process", 1)
    for line in plain_lines(lines):
        for pattern, name, start, end in _STAGES:
            if match := re.search(pattern, line):
                counter = match.groupdict()
                done, whole = int(counter.get("share") or counter.get("done") or 0), int(counter.get("all") or 100)
                percent = start + round((end - start) * min(done / (whole or 1), 1.0))
                furthest = StartupStage(name, percent) if percent >= furthest.percent else furthest
    return furthest


_COLD_SHAPE = re.compile(r"Configuration: \((?P<shape>[^)]*)\).*was not warmed-up!")


Shape: TypeAlias = tuple[str, int, int, int]
"""Phase, batch size, query length and context blocks."""


def read_cold_shapes(lines: Iterable[str]) -> Counter[Shape]:
    """Return the shapes that were not warmed up, from a Gaudi server's log, with how often each was met.

    The plugin compiles a graph for each bucket of batch size, query length and context before it serves. A shape
    outside of them is compiled when it first comes, and that request is slow; many of them spoil a latency figure.
    """
    counts: Counter[Shape] = Counter()
    for match in filter(None, map(_COLD_SHAPE.search, lines)):
        numbers = [max(1, int(each)) for each in re.findall(r"\d+", match["shape"])]
        batch, query, blocks = [*numbers, 1, 1, 1][:3]
        counts["DECODE" if "decode" in match["shape"].lower() else "PROMPT", batch, query, blocks] += 1
    return counts


def proposed_buckets(shapes: Iterable[Shape]) -> dict[str, str]:
    """Return the variables of buckets that reach as far as the shapes, rounded up to a power of two."""
    limits: dict[str, int] = {}
    for phase, batch, query, blocks in shapes:
        prompt = {"BS": batch, "QUERY": query, "CTX": blocks}
        for part, size in (prompt if phase == "PROMPT" else {"BS": batch, "BLOCK": blocks}).items():
            name = f"VLLM_{phase}_{part}_BUCKET_MAX"
            limits[name] = max(limits.get(name, 1), size)
    return {name: str(1 << (size - 1).bit_length()) for name, size in sorted(limits.items())}
