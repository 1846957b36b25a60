"""Random calls, right and wrong, give the package's own texts and the package's own full hash of the database."""

from __future__ import annotations

import asyncio
import functools
import json
import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inspect_ai.tool import ToolDef
from inspect_evals.tau2.utils import get_dict_hash
from inspect_oracle import PackageWorld, base_hash, expected_hash, loaded_database, tools_of
from random_calls import UNREADABLE, mutated

from tautools.bench import open_source
from tautools.bench.sources.inspect_tau2 import InspectEnvState
from tautools.bench.types import Domain, Task

pytestmark = pytest.mark.usefixtures("bearable_package")

BOOKING: dict[str, Any] = {
    "user_id": "mia_li_3668",
    "origin": "JFK",
    "destination": "SEA",
    "flight_type": "one_way",
    "cabin": "economy",
    "flights": [{"flight_number": "HAT069", "date": "2024-05-20"}],
    "passengers": [{"first_name": "Mia", "last_name": "Li", "dob": "1990-04-05"}],
    "payment_methods": [
        {"payment_id": "certificate_4856383", "amount": 100},
        {"payment_id": "credit_card_4421486", "amount": 21},
    ],
    "total_baggages": 1,
    "nonfree_baggages": 0,
    "insurance": "no",
}
CARD = {"payment_id": "credit_card_4421486"}
MADE_UP: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "airline": [
        ("search_onestop_flight", {"origin": "JFK", "destination": "SEA", "date": "2024-05-20"}),
        ("send_certificate", {"user_id": "mia_li_3668", "amount": 100}),
        ("book_reservation", BOOKING),
        ("update_reservation_passengers", {"reservation_id": "HATHAT", "passengers": BOOKING["passengers"]}),
        (
            "update_reservation_flights",
            {"reservation_id": "HATHAT", "cabin": "business", "flights": BOOKING["flights"]} | CARD,
        ),
        (
            "update_reservation_baggages",
            {"reservation_id": "HATHAT", "total_baggages": 4, "nonfree_baggages": 2} | CARD,
        ),
        ("cancel_reservation", {"reservation_id": "HATHAT"}),
    ],
    "retail": [("list_all_product_types", {})],
}


def _calls_of(domain: Domain, task: Task) -> list[tuple[str, dict[str, Any]]]:
    """Return what an agent could well call in this task: its reference, some lookups, and a trip booked and changed."""
    return [
        *((action.name, dict(action.arguments)) for action in task.reference),
        ("calculate", {"expression": "2 + 3 * (4.5 - 1)"}),
        ("transfer_to_human_agents", {"summary": "cannot help"}),
        *MADE_UP[domain.ref.env],
    ]


@st.composite
def _walks(draw: st.DrawFn, env: str) -> tuple[str, list[tuple[str, str]]]:
    domain = open_source().domain(env)
    task = draw(st.sampled_from(list(domain.tasks.values())))
    known = _calls_of(domain, task)
    walk = []
    if env == "airline" and draw(st.booleans()):
        walk.append(("book_reservation", json.dumps(BOOKING)))  # what others change
    for _ in range(draw(st.integers(1, 7))):
        name, arguments = draw(st.sampled_from(known))
        kind = draw(st.sampled_from(["as it is"] * 3 + ["mutated"] * 5 + ["unreadable", "unknown"]))
        if kind == "mutated":
            arguments = mutated(draw, arguments)
        if kind == "unknown":
            name = draw(st.sampled_from(["get_order", "respond", "", "find_user"]))
        walk.append((name, draw(UNREADABLE) if kind == "unreadable" else json.dumps(arguments)))
    return task.id, walk


@functools.cache
def _dumped(env: str) -> dict[str, dict[str, Any]]:
    return dict(loaded_database(env).model_dump())


def _full_hash(env_state: InspectEnvState) -> str:
    """Hash our whole database, the package's way: the base with what was touched in its place."""
    tables = {name: dict(table) for name, table in _dumped(env_state._domain.ref.env).items()}
    for name, table in vars(env_state.toolkit.db).items():
        for key in table.touched:
            tables[name][key] = table[key].model_dump()
    return str(get_dict_hash(tables))


async def _compare(env: str, task_id: str, walk: list[tuple[str, str]]) -> None:
    domain = open_source().domain(env)
    task = domain.tasks[task_id]
    ours, theirs = domain.env_state(task), PackageWorld(env)
    assert isinstance(ours, InspectEnvState)
    for name, arguments in walk:
        seen, answer = await ours.call(name, arguments), await theirs.call(name, arguments)
        assert (seen.text, seen.error) == (answer.content, answer.failed)
        assert seen.arguments == json.dumps(answer.arguments)
    assert _full_hash(ours) == theirs.hash()
    assert ours.reward([]).info["db"] == (theirs.hash() == expected_hash(env, task_id))


@pytest.mark.slow
# Where a tool crashes, inspect leaves its streams open; that is what some of these walks are about.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("env", ["airline", "retail"])
def test_random_walks_read_and_leave_what_the_packages_own_machinery_does(env: str) -> None:
    @settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(_walks(env))
    def walk(example: tuple[str, list[tuple[str, str]]]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydantic warns of odd values while it serializes them, here and there
            asyncio.run(_compare(env, *example))

    walk()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("total", "nonfree"), [(4.0, 2), (4, 2.0), (4.0, 2.0), (4.5, 2), ("4", 2), (True, 0)])
async def test_numbers_of_another_kind_are_taken_as_the_package_takes_them(total: Any, nonfree: Any) -> None:
    change = {"reservation_id": "HATHAT", "total_baggages": total, "nonfree_baggages": nonfree} | CARD
    walk = [("book_reservation", json.dumps(BOOKING)), ("update_reservation_baggages", json.dumps(change))]
    await _compare("airline", "0", walk)


async def test_what_would_lose_inspects_turn_is_told_to_the_model() -> None:
    domain = open_source().domain("airline")
    arguments = json.dumps(BOOKING | {"passengers": [{"first_name": "Mia", "last_name": "Li"}]})
    seen = await domain.env_state(domain.tasks["0"]).call("book_reservation", arguments)
    assert (await PackageWorld("airline").call("book_reservation", arguments)).crashed
    assert seen.error
    assert seen.text.startswith("Error: 1 validation error for Passenger\ndob\n  Field required")


def test_the_shared_database_is_as_it_was_loaded(domain: Domain) -> None:
    for task in domain.tasks.values():
        env_state = domain.env_state(task)
        for action in task.reference:
            asyncio.run(env_state.call(action.name, json.dumps(dict(action.arguments))))  # type: ignore[arg-type]
    tables = domain.tables  # type: ignore[attr-defined]
    whole = {name: {key: found.model_dump() for key, found in table.entities.items()} for name, table in tables.items()}
    assert get_dict_hash(whole) == base_hash(domain.ref.env)


def test_two_conversations_at_once_do_not_see_each_other(retail: Domain) -> None:
    task = next(task for task in retail.tasks.values() if any("cancel" in action.name for action in task.reference))
    one, other = retail.env_state(task), retail.env_state(task)
    for action in task.reference:
        asyncio.run(one.call(action.name, json.dumps(dict(action.arguments))))  # type: ignore[arg-type]
    assert one.reward(list(task.communicate)).info["different"] == []
    assert other.reward(list(task.communicate)).info["different"] != []


def test_an_equal_number_of_another_kind_is_another_database(retail: Domain) -> None:
    """`100 == 100.0`, and the package's hash tells them apart."""
    env_state = retail.env_state(next(iter(retail.tasks.values())))
    assert isinstance(env_state, InspectEnvState)
    untouched = env_state.reward([]).info["different"]
    key, user = next((key, user) for key, user in env_state.toolkit.db.users.items() if _gift_card(user) is not None)
    card = _gift_card(env_state.toolkit.db.users[key])
    card.balance = int(card.balance)
    assert card == _gift_card(user)
    assert set(env_state.reward([]).info["different"]) - set(untouched) == {f"users/{key}"}


def _gift_card(user: Any) -> Any:
    """Return a gift card with a whole number of dollars on it."""
    cards = (card for card in user.payment_methods.values() if card.source == "gift_card")
    return next((card for card in cards if card.balance == int(card.balance)), None)


@pytest.mark.parametrize("env", ["airline", "retail"])
def test_the_tools_offered_are_those_that_inspects_openai_provider_sends(env: str) -> None:
    from inspect_ai.model._openai import openai_chat_tools
    from inspect_ai.tool import ToolInfo

    found = [ToolDef(tool) for tool in tools_of(env)]
    infos = [ToolInfo(name=tool.name, description=tool.description, parameters=tool.parameters) for tool in found]
    assert open_source().domain(env).tools == openai_chat_tools(infos)
