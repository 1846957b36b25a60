"""What a run tells: events to its caller and its file, and lines to the log that people search for.

`[TAU2_TASK_COMPLETE]`, `OVERALL_ETA` and `Retrying in N seconds` keep the words of the logs that users grep today.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from tautools.records import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from tautools.errors import ModelCallError
    from tautools.llm.types import CallTag
    from tautools.records import CommitRow, Setting
    from tautools.run.writer import Writer

__all__ = ["Teller", "clock"]

log = logging.getLogger("tautools.run")


class Teller:
    """Turns what happens into events and log lines.

    Parameters
    ----------
    setting : Setting
        What is being run.
    writer : Writer
        Where events are kept.
    on_event : callable
        Called with every event; may be called from the run's thread.
    """

    def __init__(self, setting: Setting, writer: Writer, on_event: Callable[[Event], None]) -> None:
        self._setting = setting
        self._writer = writer
        self._on_event = on_event
        self._name = f"{setting.env} {setting.strategy.value} {setting.agent.model}"

    def tell(self, kind: str, message: str = "", *, at: tuple[str, int] | None = None, **data: Any) -> None:
        """Keep an event in the events file and pass it on.

        Parameters
        ----------
        kind : str
            What happened, one word.
        message : str
            The same for people.
        at : (str, int), optional
            Task and trial (from 0) that it happened to; None when it concerns the whole run.
        **data
            What belongs to it, in what JSON can hold.
        """
        event = self._event(kind, message, at, data)
        self._writer.event(event)
        self._on_event(event)

    def started(self, **data: Any) -> None:
        """Tell that the run starts."""
        self.tell("start", f"{data['done']} done, {data['owed']} owed", **data)
        for difference in data.get("mixed", []):
            log.warning("Mixed provenance under one setting: %s", difference)

    def finished(self, row: CommitRow, **data: Any) -> None:
        """Tell that a conversation is finished; the ledger has it, so the events file does not repeat it."""
        if row.writer == self._writer.name:
            self._log_finished(row, data)
        message = f"task {row.task_id} trial {row.trial}: {row.outcome.value}, reward {_figure(row.reward)}"
        data |= {"outcome": row.outcome.value, "reward": row.reward, "took_s": row.duration_s, "writer": row.writer}
        self._on_event(self._event("done", message, (row.task_id, row.trial), data))

    def _log_finished(self, row: CommitRow, data: dict[str, Any]) -> None:
        log.info(
            "[TAU2_TASK_COMPLETE] %s task=%s trial=%d outcome=%s reward=%s took=%.1fs calls=%d (%d/%d)",
            self._name,
            row.task_id,
            row.trial,
            row.outcome.value,
            _figure(row.reward),
            row.finished_at - row.started_at,
            row.model_calls,
            data["done"],
            data["planned"],
        )
        eta = data.get("eta_s")
        log.info(
            "OVERALL_ETA %s done=%d/%d elapsed=%s",
            "unknown" if eta is None else clock(eta),
            data["done"],
            data["planned"],
            clock(data["elapsed_s"]),
        )

    def retrying(self, tag: CallTag, delay_s: float, error: ModelCallError) -> None:
        """Tell that a model call is tried again after a while."""
        log.warning(
            "Retrying in %s seconds: %s task=%s trial=%d %s call: %s (%s)",
            f"{delay_s:.3g}",
            self._name,
            tag.task_id,
            tag.trial,
            tag.role.value,
            error.fault.value,
            error.problem,
        )
        self.tell(
            "retry",
            error.problem,
            at=(tag.task_id, tag.trial),
            fault=error.fault.value,
            role=tag.role.value,
            delay_s=delay_s,
            status=error.status,
        )

    def _event(self, kind: str, message: str, at: tuple[str, int] | None, data: dict[str, Any]) -> Event:
        task_id, trial = at if at is not None else ("", None)
        return Event(
            kind=kind,
            at=time.time(),
            setting_id=self._setting.id,
            task_id=task_id,
            trial=trial,
            message=message,
            data=data,
        )


def clock(seconds: float) -> str:
    """Return a length of time as `H:MM:SS`.

    Examples
    --------
    >>> clock(3725.4)
    '1:02:05'
    """
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _figure(reward: float | None) -> str:
    return "none" if reward is None else f"{reward:g}"
