"""Layouts: which replica gets which cards and port, and what cannot be. Arithmetic, and models as folders on disk."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from serving import fake_vllm, simulated

from tautools.errors import ParamsError, ServerError
from tautools.params.models import ServerParams, SiteParams
from tautools.servers.accelerators.probe import Card
from tautools.servers.backends.local import node_addresses, routable_host
from tautools.servers.model_cache import ModelFacts, model_facts, why_not_fit
from tautools.servers.placement import Layout, NodeState, apply_layout_options, plan_layout, site_node_state

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SITE = SiteParams(name="node", device="cuda")


def node(*used_mib: int, **more: Any) -> NodeState:
    cards = [Card("cuda", index, index, used, 81920) for index, used in enumerate(used_mib)]
    return NodeState(SITE, cards, **more)


def model(name: str, across: int = 1, **fields: Any) -> ServerParams:
    return fake_vllm(name, vllm={"tensor_parallel_size": across}, **fields)


def cards_of(layout: Layout) -> dict[str, list[int]]:
    return {place.name: place.params.cards for place in layout.places}


def plan(servers: Sequence[ServerParams], state: NodeState, gpu_ids: Sequence[int] | None = None) -> Layout:
    return plan_layout(servers, state, gpu_ids=gpu_ids)


def test_replicas_and_tensor_parallel_models_share_a_node() -> None:
    layout = plan([model("agent", replicas=2), model("user", 2), model("big", 4)], node(*[0] * 8))

    assert cards_of(layout) == {"agent-0": [0], "agent-1": [1], "user": [2, 3], "big": [4, 5, 6, 7]}
    assert layout.require() is layout.places
    assert {place.params.replicas for place in layout.places} == {1}


def test_busy_and_promised_cards_are_passed_over() -> None:
    layout = plan([model("agent", replicas=2)], node(0, 40000, 0, 0, promised={2: "other"}))

    assert cards_of(layout) == {"agent-0": [0], "agent-1": [3]}


def test_forced_plans_take_idle_cards_first() -> None:
    assert cards_of(plan([model("a", 2)], node(40000, 0, force=True))) == {"a": [1, 0]}


def test_chosen_cards_are_given_out_in_the_order_they_were_named() -> None:
    assert cards_of(plan([model("a", replicas=2, cards=[0])], node(0, 0, 0, 0), [3, 2])) == {"a-0": [3], "a-1": [2]}


def test_cards_written_for_all_replicas_are_shared_out() -> None:
    servers = [model("a", 2, replicas=2, cards=[4, 5, 6, 7]), model("b")]

    assert cards_of(plan(servers, node(*[0] * 8))) == {"a-0": [4, 5], "a-1": [6, 7], "b": [0]}


@pytest.mark.parametrize(
    ("servers", "state", "gpu_ids", "problem"),
    [
        ([model("a", 4)], node(0, 0), None, "a: needs 4 cards, and the node has 2"),
        ([model("a", 2, replicas=3)], node(0, 0, 0, 0), None, "a: needs 3 x 2 = 6 cards, and the node has 4"),
        ([model("a", 2), model("b", 2)], node(0, 0, 0), None, "b: needs 2 cards, and 1 are left"),
        ([model("a")], node(0, 0), [5], "card 5 is not among the cards of this node (0, 1)"),
        ([model("a")], node(0, 0), [1, 1], "card 1 is named 2 times"),
        ([model("a")], node(0, 40000), [1], "card 1 is in use: 40000 of 81920 MiB used"),
        ([model("a")], node(0, promised={0: "user"}), [0], "card 0 is in use: it belongs to server 'user'"),
        ([model("a", cards=[0]), model("b", cards=[0])], node(0, 0), None, "card 0 is given to a, b"),
        ([model("a", 2, cards=[0])], node(0, 0), None, "a: 1 cards are written for 1 x 2 that it takes"),
        ([model("a"), model("a")], node(0, 0), None, "a: 2 servers of that name"),
        ([model("a", replicas=2), model("a-1")], node(0, 0, 0), None, "a-1: 2 servers of that name"),
        ([model("a")], NodeState(SITE), None, "a: needs 1 cards, and this node has none that can be seen"),
        ([model("a", start_port=1900)], node(0, port_is_free=lambda port: port != 1900), None, "a: port 1900 is taken"),
        ([model("a", start_port=65535, replicas=2)], node(0, 0), None, "a: port 65536 does not exist"),
        (
            [model("a", start_port=1900, end_port=1901, replicas=2)],
            node(0, 0, port_is_free=lambda port: port != 1900),
            None,
            "a: no port of 1900-1901 is left",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    servers: list[ServerParams], state: NodeState, gpu_ids: list[int] | None, problem: str
) -> None:
    layout = plan(servers, state, gpu_ids)

    assert any(text.startswith(problem) for text in layout.problems), layout.problems
    with pytest.raises(ServerError, match="cannot be started like that"):
        layout.require()


def test_four_replicas_get_four_ports_in_a_row_and_a_range_skips_the_taken_one() -> None:
    row = plan([simulated("s", start_port=1900, replicas=4)], node())
    skipping = plan(
        [simulated("s", start_port=1900, end_port=1909, replicas=3)], node(port_is_free=lambda port: port != 1901)
    )

    assert [place.params.port for place in row.places] == [1900, 1901, 1902, 1903]
    assert [place.params.port for place in skipping.places] == [1900, 1902, 1903]


def test_a_start_port_for_several_servers_goes_on_from_one_to_the_next() -> None:
    servers = apply_layout_options(
        [simulated("a"), simulated("b", port=8007)], replicas={"a": 3}, start_port=1900, stagger=5.0
    )

    ports = [place.params.port for place in plan(servers, node()).places]

    assert ports == [1900, 1901, 1902, 1903]
    assert [server.stagger for server in servers] == [5.0, 5.0]


def test_replicas_of_a_server_with_one_port_or_of_an_unknown_name_are_refused() -> None:
    with pytest.raises(ParamsError, match="`port` is for one server"):
        apply_layout_options([simulated("a", port=8007)], replicas={"a": 2})
    with pytest.raises(ParamsError, match="Replicas are asked for 'c'"):
        apply_layout_options([simulated("a")], replicas={"c": 2})


def test_a_node_that_cannot_be_looked_at_gets_no_cards_and_a_note(tmp_path: Path) -> None:
    away = site_node_state([model("a", 2)], SiteParams(name="away", scheduler="slurm", device="gaudi"), tmp_path)

    layout = plan([model("a", 2)], away)

    assert (cards_of(layout), layout.problems) == ({"a": []}, [])
    assert layout.notes == ["a: the node's cards are not known here, so none is assigned"]
    assert cards_of(plan([model("a", 2)], away, [4, 5])) == {"a": [4, 5]}


def test_a_cluster_node_is_planned_from_its_sites_file(tmp_path: Path) -> None:
    site = SiteParams(name="g", scheduler="slurm", device="gaudi", cards_per_node=8, card_memory_gib=96)
    servers = [model("agent", replicas=4), model("user", 4), model("more")]

    layout = plan(servers, site_node_state(servers, site, tmp_path))

    assert cards_of(layout)["user"] == [4, 5, 6, 7]
    assert layout.problems == ["more: needs 1 cards, and 0 are left"]


def write_model(folder: Path, weights: int = 0, **config: Any) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if weights:
        index = {"metadata": {"total_size": weights}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_heads_and_weights_are_read_from_a_folder_and_from_the_cache(tmp_path: Path) -> None:
    config = {"num_attention_heads": 40, "num_key_value_heads": 8, "max_position_embeddings": 40960}
    write_model(tmp_path / "models" / "own", 64 * 1024**3, **config)
    repo = tmp_path / "hf" / "hub" / "models--Qwen--Qwen3-14B"
    write_model(repo / "snapshots" / "abc", text_config=config)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc\n")
    env = {"HF_HOME": str(tmp_path / "hf")}

    assert model_facts("models/own", workspace=tmp_path, environ=env) == ModelFacts(40, 8, 64.0)
    assert model_facts("Qwen/Qwen3-14B", workspace=tmp_path, environ=env) == ModelFacts(40, 8, None)
    assert model_facts("Qwen/Other", workspace=tmp_path, environ=env) == ModelFacts()


def test_damaged_model_files_are_nothing_known(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text("{")

    assert model_facts("m", workspace=tmp_path, environ={}) == ModelFacts()


@pytest.mark.parametrize(
    ("across", "facts", "why"),
    [
        (3, ModelFacts(40, 8), "40 attention heads cannot be shared by 3 cards; 1, 2, 4, 5, 8, 10 can"),
        (5, ModelFacts(40, 8), "8 key-value heads and 5 cards: one must divide the other"),
        (1, ModelFacts(40, 8, 75.0), "its weights take 75.0 GiB of each card, which gives 72.0 GiB (90% of 80 GiB)"),
        (2, ModelFacts(40, 8, 75.0), ""),
        (16, ModelFacts(64, 4), ""),
        (3, ModelFacts(), ""),
    ],
)
def test_what_does_not_fit_the_cards_is_refused_with_the_reason(across: int, facts: ModelFacts, why: str) -> None:
    assert why_not_fit(model("a", across), facts, card_mib=80 * 1024) == why


def test_a_plan_refuses_heads_that_do_not_divide() -> None:
    servers = [model("a", 3)]

    layout = plan(servers, node(0, 0, 0, 0, facts={servers[0].model: ModelFacts(32, 8)}))

    assert layout.problems == ["a: 32 attention heads cannot be shared by 3 cards; 1, 2, 4, 8, 16 can"]


def test_others_call_a_node_by_its_name_interface_network_or_address() -> None:
    everywhere = "0.0.0.0"
    loopback = next(name for name, own in node_addresses().items() if "127.0.0.1" in own)

    assert routable_host("127.0.0.1", "10.0.0.0/8") == "127.0.0.1"
    assert routable_host("::1") == "[::1]"
    assert routable_host(everywhere) == socket.gethostname()
    assert routable_host(everywhere, loopback) == "127.0.0.1"
    assert routable_host(everywhere, "127.0.0.0/8") == "127.0.0.1"
    with pytest.raises(ParamsError) as error:
        routable_host(everywhere, "ib7")
    assert f"{loopback}: 127.0.0.1" in error.value.evidence
