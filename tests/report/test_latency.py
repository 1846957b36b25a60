"""Latencies against a second, plain count over the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fixed_results import PLANS, START, Plan, write_fixed_results

from tautools.records import CallRecord, Conversation, Outcome, Role, Setting, Strategy
from tautools.report import conversation_frame, find_cells, latency_report
from tautools.report.latency import LatencyReport
from tautools.run.folder import claim_folder
from tautools.run.ledger import ResultsWriter


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> LatencyReport:
    return latency_report(workspace=write_fixed_results(tmp_path_factory.mktemp("fixed")))


def _raw(data: dict[str, object]) -> list[dict[str, object]]:
    """Every call that the JSON names as its source, read as plain JSON."""
    files = [file for place in data["rows"] for file in place["files"]]  # type: ignore[attr-defined]
    return [json.loads(line) for file in files for line in Path(file).read_text().splitlines()]


def test_every_percentile_in_the_json_can_be_recomputed_from_the_rows_it_names(report: LatencyReport) -> None:
    data = report.to_json()
    calls = _raw(data)
    assert len(calls) == sum(place["used"] for place in data["rows"])
    for group in data["groups"]:
        mine = [c for c in calls if (c["role"], c["model"], c["fault"]) == (group["role"], group["model"], "")]
        assert len(mine) == group["answered"]
        for column in ("ttft_s", "decode_s", "e2e_s"):
            values = [call[column] for call in mine if call.get(column) is not None]
            found = group["metrics"][column]
            assert found["n"] == len(values)
            for percent in (10, 25, 40, 50, 75, 90, 95, 99):
                assert found[f"p{percent}_s"] == pytest.approx(np.percentile(values, percent))
            assert found["share_under_5_s"] == pytest.approx(sum(value < 5 for value in values) / len(values))
            assert sum(found["histogram"]["counts"]) == len(values)
        assert group["tokens"]["prompt"] == sum(call["prompt_tokens"] for call in mine)
        assert group["tokens"]["output"] == sum(call["output_tokens"] for call in mine)
        assert group["tokens"]["cached"] == sum(call.get("cached_tokens") or 0 for call in mine)


def test_tpot_is_decode_time_over_the_tokens_after_the_first(report: LatencyReport) -> None:
    calls = [call for call in _raw(report.to_json()) if call["role"] == "user" and call.get("decode_s") is not None]
    values = [call["decode_s"] / (call["output_tokens"] - 1) for call in calls]  # type: ignore[operator]
    (group,) = [group for group in report.groups if group.role == "user"]
    assert group.timing("tpot_s").summary.percentiles_s[50] == pytest.approx(np.median(values))


def test_roles_are_apart_agents_first_and_each_source_is_stated(report: LatencyReport) -> None:
    assert [group.role for group in report.groups] == ["agent", "agent", "user"]
    for group in report.groups:
        assert group.timing("ttft_s").source == "streamed"
        assert group.timing("e2e_s").source.startswith("streamed ")
        assert ", wall " in group.timing("e2e_s").source
        assert group.timing("server_prefill_s").summary.n == 0


def test_calls_that_failed_are_counted_and_enter_no_figure(report: LatencyReport) -> None:
    by_model = {group.model: group for group in report.groups}
    small = by_model["Qwen/Qwen3-4B-Instruct-2507"]
    assert small.faults == {"server_fault": 2}
    assert small.answered == small.timing("e2e_s").summary.n
    assert "2 further calls failed and are left out" in report.summary.first


def test_tokens_that_no_server_reported_are_called_so_rather_than_zero(report: LatencyReport) -> None:
    assert "not reported" in repr(report.tokens)


def test_nested_cells_count_each_call_and_conversation_once(report: LatencyReport) -> None:
    cells = find_cells(report.workspace)
    assert len(cells) == 4
    assert len(conversation_frame(cells)) == 166
    assert len(report.calls) == len(_raw(report.to_json()))
    assert [event.kind for cell in cells for event in cell.faults] == ["fault", "fault"]


def _one_conversation(tmp_path: Path, calls: list[CallRecord], *, started: float, finished: float) -> LatencyReport:
    plan = Plan("airline", Strategy.FC, "M", 1, (1,), 1.0)
    setting: Setting = plan.setting
    writer = ResultsWriter(claim_folder(tmp_path / "results", setting, {}).path)
    for call in calls:
        writer.call(call.model_copy(update={"setting_id": setting.id, "task_id": "0", "model": "M"}))
    writer.commit(
        Conversation(
            setting_id=setting.id,
            env="airline",
            task_id="0",
            trial=0,
            outcome=Outcome.PASSED,
            reward=1.0,
            messages=[],
            seed=0,
            started_at=started,
            finished_at=finished,
        ),
        {},
    )
    writer.close()
    return latency_report(workspace=tmp_path)


def test_a_turn_runs_from_its_first_request_to_the_end_of_its_last(tmp_path: Path) -> None:
    calls = [
        CallRecord(role=Role.USER, turn=0, started_at=START, e2e_s=9.0),
        CallRecord(role=Role.AGENT, turn=0, started_at=START + 10, queue_s=0.5, e2e_s=1.0),
        CallRecord(role=Role.AGENT, turn=0, started_at=START + 12, queue_s=0.0, e2e_s=2.0),
        CallRecord(role=Role.AGENT, turn=1, started_at=START + 20, queue_s=0.25, e2e_s=0.5),
    ]
    turns = _one_conversation(tmp_path, calls, started=START, finished=START + 30).turns
    assert turns[["turn", "requests"]].to_numpy().tolist() == [[0, 2], [1, 1]]
    assert turns["turn_s"].tolist() == pytest.approx([4.0, 0.75])


def test_requests_of_an_attempt_that_was_lost_stretch_no_turn(tmp_path: Path) -> None:
    calls = [
        CallRecord(role=Role.AGENT, turn=0, started_at=START - 500, e2e_s=1.0),
        CallRecord(role=Role.AGENT, turn=0, started_at=START + 1, e2e_s=1.0),
    ]
    report = _one_conversation(tmp_path, calls, started=START, finished=START + 5)
    assert report.turns["turn_s"].tolist() == pytest.approx([1.0])
    assert len(report.calls) == 2


def test_probes_are_no_part_of_a_conversation(tmp_path: Path) -> None:
    calls = [CallRecord(role=Role.PROBE, started_at=START + 1, e2e_s=1.0)]
    report = _one_conversation(tmp_path, calls, started=START, finished=START + 5)
    assert report.calls.empty
    assert "There are no model calls" in repr(report.summary)


def test_times_that_the_server_reports_stand_apart_from_those_measured_here(tmp_path: Path) -> None:
    calls = [
        CallRecord(
            role=Role.AGENT,
            started_at=START,
            ttft_s=0.5,
            decode_s=1.0,
            e2e_s=1.5,
            output_tokens=11,
            server_queue_s=0.2,
            server_prefill_s=0.3,
            server_generation_s=1.0,
        )
    ]
    (group,) = _one_conversation(tmp_path, calls, started=START, finished=START + 5).groups
    assert group.timing("server_prefill_s").summary.percentiles_s[50] == pytest.approx(0.3)
    assert group.timing("server_prefill_s").source == "server"
    assert group.timing("ttft_s").source == "streamed"


def test_a_call_without_a_first_token_has_no_ttft(tmp_path: Path) -> None:
    calls = [CallRecord(role=Role.AGENT, started_at=START, e2e_s=1.5, source="wall")]
    report = _one_conversation(tmp_path, calls, started=START, finished=START + 5)
    (group,) = report.groups
    assert (group.timing("ttft_s").summary.n, group.timing("e2e_s").summary.n) == (0, 1)
    ttft = next(line for line in repr(report.by_role).splitlines() if "TTFT [s]" in line)
    assert ttft.split()[-10:] == ["0", *["–"] * 9]
    assert group.timing("ttft_s").histogram is None


def test_simulated_calls_are_marked(tmp_path: Path) -> None:
    from dataclasses import replace

    write_fixed_results(tmp_path, (replace(PLANS[2], simulated=True),))
    report = latency_report(workspace=tmp_path)
    assert report.summary.simulated
    assert all("SIMULATED" in repr(table) for table in report.tables[:-1])  # the last one holds no figure
    assert all(picture.alt.endswith("SIMULATED models.") for picture in (*report.histograms, report.turn_figure))


def test_calls_that_all_failed_make_a_report_of_n_0(tmp_path: Path) -> None:
    plan = Plan("retail", Strategy.FC, "Qwen/Qwen3-8B", 2, (1,), 0.5, pending=(("0", 0), ("1", 0)))
    report = latency_report(workspace=write_fixed_results(tmp_path, (plan,)))
    assert "No request of an agent was answered (n = 0); 2 further calls failed" in report.summary.first
    (group,) = report.groups
    assert (group.answered, dict(group.faults)) == (0, {"server_fault": 2})
    assert all(timing.summary.n == 0 for timing in group.timings)
    assert all(note.strip(" .") for note in report.by_role.notes), "no note is empty"
    assert report.to_json()["turns"] == []


def _loaded(cold: bool, in_flight: int | None, ttft_s: float, **more: object) -> CallRecord:
    times = {"started_at": START, "ttft_s": ttft_s, "decode_s": 1.0, "e2e_s": ttft_s + 1.0, "output_tokens": 11}
    load = {"role": Role.AGENT, "cold": cold, "in_flight": in_flight, "replicas": 1}
    return CallRecord.model_validate({**load, **times, **more})


def test_percentiles_stand_with_and_without_the_first_calls_to_a_cold_server(tmp_path: Path) -> None:
    calls = [_loaded(True, 1, 9.0), *[_loaded(False, 1, 0.5)] * 3]
    report = _one_conversation(tmp_path, calls, started=START, finished=START + 5)
    (group,) = report.groups
    assert group.cold == 1
    lines = [line.split() for line in repr(report.by_role).splitlines() if "TTFT [s]" in line]
    assert [(line[4], line[6], line[-3]) for line in lines] == [("all", "4", "8.74"), ("warm", "3", "0.500")]
    assert "9.74 s at the 99th percentile, 1.50 s without the 1 to a cold server (4 requests" in report.summary.first
    (data,) = report.to_json()["groups"]
    assert (data["metrics"]["ttft_s"]["n"], data["metrics_warm"]["ttft_s"]["n"]) == (4, 3)


def test_without_a_cold_call_nothing_is_told_twice(tmp_path: Path) -> None:
    report = _one_conversation(tmp_path, [_loaded(False, 1, 0.5)], started=START, finished=START + 5)
    assert repr(report.by_role).count("TTFT [s]") == 1
    assert "cold" not in repr(report.by_role) + repr(report.summary)


def test_latency_is_told_by_load_in_doubling_steps_and_by_replicas(tmp_path: Path) -> None:
    loads = [1, 2, 3, 4, 5, 8, 9, 16, 17]
    calls = [_loaded(False, load, load / 10) for load in loads]
    calls += [_loaded(True, 4, 9.0), _loaded(False, None, 9.0), _loaded(False, 1, 0.9, replicas=2)]
    report = _one_conversation(tmp_path, calls, started=START, finished=START + 5)
    rows = [(row["replicas"], row["in flight"], row["n"], row["TTFT p50 [s]"]) for row in report.by_load.rows]
    steps = [("1", "1", "0.100"), ("2", "1", "0.200"), ("3–4", "2", "0.350"), ("5–8", "2", "0.650")]
    steps += [("9–16", "2", "1.25"), ("17–32", "1", "1.70")]
    assert rows == [*(("1", *step) for step in steps), ("2", "1", "1", "0.900")]
    (figure,) = report.load_figures
    assert figure.png
    assert "17–32" in figure.alt
    assert {load["in_flight_at_most"] for load in report.to_json()["loads"]} == {1, 2, 4, 8, 16, 32}


def test_records_from_before_load_was_recorded_are_read(tmp_path: Path) -> None:
    calls = [CallRecord(role=Role.AGENT, started_at=START, ttft_s=0.5, e2e_s=1.5)]
    report = _one_conversation(tmp_path, calls, started=START, finished=START + 5)
    (file,) = (tmp_path / "results").rglob("calls/*.jsonl")
    older = json.loads(file.read_text()) | {"server_ttft_s": 0.3}
    file.write_text(json.dumps({name: value for name, value in older.items() if name != "cold"}) + "\n")
    report = latency_report(workspace=tmp_path)
    assert report.groups[0].timing("ttft_s").summary.n == 1
    assert "n = 0: no call's load was recorded." in repr(report.by_load)
