"""Certificates and comparisons: computed from what is stored, and false when the store says otherwise."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import pytest
from click.testing import CliRunner
from served_cells import cell_at, simulated_model

from tautools.cli.persona import persona_command
from tautools.errors import ParamsError, PersonaError
from tautools.params.models import RoleParams
from tautools.run import read_conversation, read_ledger, read_setting, run_cell
from tautools.run.personas.comparison import CERTIFICATE, certify, compare
from tautools.run.personas.measures import facts_coverage, facts_to_tell, groups_of, keep_labels, wording

TASKS, TRIALS = 6, 2
CONTROL, ANGER, OTHER = "4B", "4B+anger", "4B+confusion-strong"


@pytest.fixture(scope="module")
def server():
    with simulated_model(skill=0.7) as running:
        yield running


@pytest.fixture(scope="module")
def ran(tmp_path_factory, server):
    """A workspace in which control and two personas were run."""
    workspace = tmp_path_factory.mktemp("moods")
    for persona in (None, "anger", "confusion:strong"):
        cell = cell_at(server.base_url, persona=persona, limit=TASKS, num_trials=TRIALS)
        assert run_cell(cell, workspace=workspace).finished
    return workspace


@pytest.fixture
def copy(ran, tmp_path):
    import shutil

    return shutil.copytree(ran, tmp_path / "copy")


def folder(workspace, name):
    return read_setting(workspace / "results/retail/fc" / name)


def rewrite(workspace, name, change):
    """Change every stored conversation of a setting as somebody might who does not want to run it again."""
    place = workspace / "results/retail/fc" / name
    for ledger in (place / "ledger").glob("*.jsonl"):
        rows = [json.loads(line) for line in ledger.read_text().splitlines()]
        file = place / "conversations" / rows[0]["location"]["file"]
        old, new, lines = file.read_bytes(), b"", []
        for row in rows:
            at = row["location"]
            talk = json.loads(old[at["offset"] : at["offset"] + at["length"]])
            change(talk)
            body = json.dumps(talk).encode()
            at |= {"offset": len(new), "length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            new += body + b"\n"
            lines.append(json.dumps(row, separators=(",", ":")))
        file.write_bytes(new)
        ledger.write_text("\n".join(lines) + "\n")


def checks(found):
    return {check.name: check.passed for check in found.checks}


def test_a_run_leaves_a_certificate_and_anybody_comes_to_the_same(ran):
    stored = json.loads((ran / "results/retail/fc" / ANGER / CERTIFICATE).read_text())
    again = json.loads(json.dumps(asdict(certify(ran, folder(ran, ANGER)))))
    assert stored == again
    assert (again["passed"], again["conversations"], again["simulated"]) == (True, TASKS * TRIALS, True)
    assert again["control_id"] == folder(ran, CONTROL).id
    assert set(checks(certify(ran, folder(ran, OTHER))).values()) == {True}


def test_the_wording_differs_where_the_mood_shows_and_the_figures_are_those_of_the_words(ran):
    found = certify(ran, folder(ran, ANGER))
    assert {"anger words per 100 words", "exclamations per message"} <= set(found.distinct)
    assert "confusion words per 100 words" not in found.distinct
    effect = found.wording["words per message"]
    means = {}
    for name in (CONTROL, ANGER):
        place = folder(ran, name).path
        for row in read_ledger(place).values():
            talk = read_conversation(place, row)
            said = [each["content"] for each in talk.user_messages if each["role"] == "assistant"]
            words = sum(len([w for w in text.replace("###STOP###", "").split() if w[0].isalpha()]) for text in said)
            means.setdefault(name, []).append(words / len(said))
    rough = sum(means[ANGER]) / len(means[ANGER]) - sum(means[CONTROL]) / len(means[CONTROL])
    assert effect.tasks == TASKS
    assert effect.mean == pytest.approx(rough, abs=0.5)


@pytest.mark.parametrize(
    ("spoil", "broken"),
    [
        (lambda first: first.partition("\n\n# Your mood")[0], "text in every recorded prompt"),
        (lambda first: first + " Be kind.", "text in every recorded prompt"),
        (lambda first: first.replace("# Your mood in this", "# The mood in this"), "text in every recorded prompt"),
        (lambda first: first.replace("Reason for call", "Reason for a call"), "task unchanged"),
    ],
)
def test_records_that_say_otherwise_break_it(copy, spoil, broken):
    def change(talk):
        first = talk["user_messages"][0]
        first["content"] = spoil(first["content"])

    rewrite(copy, ANGER, change)
    found = certify(copy, folder(copy, ANGER))
    assert checks(found)[broken] is False
    assert found.passed is False
    told = CliRunner().invoke(persona_command, ["check", "--workspace", str(copy), "--persona", "anger"])
    assert told.exit_code == 1
    if broken == "text in every recorded prompt":
        with pytest.raises(PersonaError, match="not in every recorded prompt"):
            found.raise_if_ineffective()


def test_another_seed_or_fewer_facts_than_control_break_it(copy):
    def change(talk):
        talk["seed"] += 1
        for message in talk["user_messages"][1:]:
            if message["role"] == "assistant":
                message["content"] = "I would rather not say."

    rewrite(copy, ANGER, change)
    found = checks(certify(copy, folder(copy, ANGER)))
    assert found["tasks, trials and seeds are control's"] is False
    assert found["facts told as by control"] is False


def test_without_control_what_needs_it_cannot_be_told(copy):
    import shutil

    shutil.rmtree(copy / "results/retail/fc" / CONTROL)
    found = certify(copy, folder(copy, ANGER))
    assert (found.passed, found.control_id, dict(found.wording)) == (None, "", {})
    assert checks(found)["text in every recorded prompt"] is True
    assert CliRunner().invoke(persona_command, ["check", "--workspace", str(copy)]).exit_code == 3
    told = CliRunner().invoke(persona_command, ["compare", "--workspace", str(copy)])
    assert "Control was not run" in told.output


def test_personas_are_compared_in_pairs(ran):
    (group,) = groups_of(ran, [folder(ran, ANGER), folder(ran, OTHER)])
    found = compare(group)
    assert [each.label for each in found.personas] == ["control", "anger", "confusion-strong"]
    control, anger, _ = found.personas
    rows = {name: list(read_ledger(folder(ran, name).path).values()) for name in (CONTROL, ANGER)}
    for each, name in ((control, CONTROL), (anger, ANGER)):
        assert each.pass_hat[0] == pytest.approx(sum(row.reward for row in rows[name]) / (TASKS * TRIALS))
        assert each.means["prompt tokens"] == pytest.approx(sum(row.prompt_tokens for row in rows[name]) / 12)
    assert anger.difference.mean == 0, "the simulated agent does not mind"
    assert anger.effects["prompt tokens"].mean == pytest.approx(
        anger.means["prompt tokens"] - control.means["prompt tokens"]
    )
    assert anger.effects["prompt tokens"].low > 0


def test_a_judge_labels_blind_and_is_counted_against_chance(copy, server):
    groups = groups_of(copy, [folder(copy, ANGER), folder(copy, OTHER)])
    judge = RoleParams(model="sim-4B", base_url=server.base_url)
    assert keep_labels(groups[0], judge, workspace=copy) == {"control": 12, "anger": 12, "confusion-strong": 12}
    labels = certify(copy, folder(copy, ANGER)).labels
    assert (labels.right, labels.conversations, labels.simulated) == (12, 12, True)
    assert labels.chance == pytest.approx(1 / 3)
    assert labels.low == pytest.approx(0.025 ** (1 / 12))
    assert labels.p == pytest.approx(3.0**-12)
    rewrite(copy, ANGER, lambda talk: talk.update(finished_at=talk["finished_at"] + 1))
    assert certify(copy, folder(copy, ANGER)).labels is None, "they were of other conversations"
    with pytest.raises(ParamsError, match="at least two personas"):
        keep_labels(groups[0][1:2], judge, workspace=copy)


@pytest.mark.parametrize("verb", ["list", "check", "compare"])
def test_every_verb_tells_programs_the_same(ran, verb):
    told = CliRunner().invoke(persona_command, [verb, "--json", "--workspace", str(ran)])
    assert told.exit_code == 0
    assert json.loads(told.stdout)
    shown = CliRunner().invoke(persona_command, [verb, "--workspace", str(ran)])
    assert "anger" in shown.output
    assert verb == "list" or "SIMULATED" in shown.output


def test_show_prints_the_text_that_is_sent(ran):
    place = folder(ran, OTHER).path
    row = next(iter(read_ledger(place).values()))
    sent = read_conversation(place, row).user_messages[0]["content"]
    told = CliRunner().invoke(
        persona_command, ["show", "confusion", "--level", "strong", "--json", "--workspace", str(ran)]
    )
    assert sent.endswith(json.loads(told.stdout)["text"])
    assert "adds nothing" in CliRunner().invoke(persona_command, ["show", "control", "--workspace", str(ran)]).output


@pytest.mark.parametrize("verb", ["check", "compare", "label"])
def test_without_results_it_says_what_to_run(tmp_path, verb):
    more = ["--judge-model", "m", "--judge-base-url", "http://127.0.0.1:9/v1"] if verb == "label" else []
    told = CliRunner().invoke(persona_command, [verb, "--workspace", str(tmp_path), *more])
    assert told.exit_code == 2
    assert "Next: Run one" in told.stderr


def test_the_labels_of_each_persona_are_counted_on_the_screen(copy, server):
    words = ["label", "--workspace", str(copy), "--judge-model", "sim-4B", "--judge-base-url", server.base_url]
    planned = CliRunner().invoke(persona_command, [*words, "--dry-run"])
    assert "retail fc anger: would be labelled" in planned.output
    told = CliRunner().invoke(persona_command, words)
    assert told.exit_code == 0
    for persona in ("control", "anger", "confusion-strong"):
        assert f"retail fc {persona}: 12 conversations labelled" in told.output
    assert "Next: `tautools persona check`" in told.output


def test_a_label_needs_a_judge(ran):
    told = CliRunner().invoke(persona_command, ["label", "--workspace", str(ran)])
    assert told.exit_code == 2
    assert "No judge was named" in told.stderr


def test_figures_of_wording_by_hand():
    found = wording(["I am ANGRY! Why? I am angry, not W1X2AB.", "Why? I am angry, not calm."])
    assert found["messages"] == 2
    assert found["questions per message"] == 1
    assert found["exclamations per message"] == 0.5
    assert found["anger words per 100 words"] == pytest.approx(100 * 3 / 14)
    assert found["capitals per 100 words"] == pytest.approx(100 / 14)
    assert wording([]) == dict.fromkeys(found, 0.0)


def test_facts_are_what_the_scenario_names_and_the_reference_needs():
    from tautools.bench import open_source

    domain = open_source().domain("retail")
    task = domain.tasks["0"]
    facts = facts_to_tell(task)
    assert facts
    assert all(fact in task.user_system.lower() for fact in facts)
    assert facts_coverage(task, []) == 0
    assert facts_coverage(task, [task.user_system]) == 1


def test_where_the_reference_needs_nothing_from_the_scenario_there_is_nothing_to_tell(tmp_path, server):
    for persona in ("control", "anxiety"):
        cell = cell_at(server.base_url, env="telecom", persona=persona)
        assert run_cell(cell, workspace=tmp_path).finished
    found = certify(tmp_path, read_setting(tmp_path / "results/telecom/fc/4B+anxiety"))
    (told,) = [check for check in found.checks if check.name == "facts told as by control"]
    assert told.passed is True
    assert "need nothing" in told.detail
