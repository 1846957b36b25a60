"""What looks wrong in an answer: over real HTTP for each markup and fault, and the answers that only look alike."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import Say, ScriptedServer

from tautools.files import packaged_yaml
from tautools.llm.answers import answer_flags, call_markup, flag_words, plain_name, says_the_same
from tautools.llm.types import CallTag, Completion, ToolCall
from tautools.records import Role
from tautools.redaction import remember_secret

TOOLS = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": {"type": "object"}}}
    for name in ("find_user_id_by_email", "get_order_details", "calculate", "list_all_product_types")
]
ASKED = [{"role": "system", "content": "You are an agent."}, {"role": "user", "content": "Where is my order?"}]
CALL = '{"name": "get_order_details", "arguments": {"order_id": "#W1"}}'
LONG = "I have found your order #W2378156. It holds a keyboard and a thermostat; both were delivered on Monday."

UNPARSED = {
    "hermes": f"<tool_call>\n{CALL}\n</tool_call>",
    "hermes, behind words": f"Let me look.\n\n<tool_call>\n{CALL}",
    "hermes, cut": "<tool_call>",
    "qwen3_coder": "<tool_call>\n<function=get_order_details>\n<parameter=order_id>\n#W1\n</parameter>\n</function>",
    "minicpm5": '<function name="get_order_details"><param name="order_id">#W1</param></function>',
    "deepseek_v3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>calculate\n```json\n{}\n```",
    "deepseek_v31": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_order_details<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
    "deepseek_v4": '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="get_order_details">',
    "deepseek_v32": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_order_details">',
    "kimi_k2": "<|tool_calls_section_begin|><|tool_call_begin|>functions.calculate:0<|tool_call_argument_begin|>{}",
    "kimi_k3": '<|open|>tools<|sep|><|open|>call tool="get_order_details" index="0"<|sep|>',
    "glm45": "<tool_call>get_order_details\n<arg_key>order_id</arg_key>\n<arg_value>#W1</arg_value>\n</tool_call>",
    "glm45, without arguments": "<tool_call>list_all_product_types\n</tool_call>",
    "openai": "<|channel|>commentary to=functions.get_order_details <|constrain|>json<|message|>{}",
    "openai, tokens skipped": 'commentary to=functions.get_order_details json{"order_id": "#W1"}',
    "nemotron_json": f"<TOOLCALL>[{CALL}]</TOOLCALL>",
    "llama3_json": '<|python_tag|>{"name": "get_order_details", "parameters": {}}',
    "llama3_json, bare": '{"type": "function", "name": "get_order_details", "parameters": {"order_id": "#W1"}}',
    "llama3_json, an invented tool": '{"name": "track_parcel", "parameters": {"order_id": "#W1"}}',
    "llama3_json, within words": f"I will look it up: {CALL} One moment, please.",
    "llama3_json, fenced": f"```json\n{CALL}\n```",
    "llama3_json, keys the other way round": '{"arguments": {"order_id": "#W1"}, "name": "get_order_details"}',
    "llama4_pythonic": '<|python_start|>[get_order_details(order_id="#W1")]<|python_end|>',
    "pythonic": '[get_order_details(order_id="#W1"), calculate(expression="1 + 1")]',
    "pythonic, without a list": 'get_order_details(order_id="#W1")',
    "pythonic, fenced": '```tool_code\nprint(get_order_details(order_id="#W1"))\n```',
    "granite": f"<|tool_call|>[{CALL}]",
    "granite-20b-fc": f"<function_call> {CALL}",
    "seed_oss": "<seed:tool_call><function=get_order_details><parameter=order_id>#W1</parameter></function>",
    "mistral": f"[TOOL_CALLS][{CALL}]",
    "mistral, newer": '[TOOL_CALLS]get_order_details[ARGS]{"order_id": "#W1"}',
    "minimax_m2": '<minimax:tool_call>\n<invoke name="get_order_details">\n</invoke>\n</minimax:tool_call>',
    "minimax": f"<tool_calls>\n{CALL}\n</tool_calls>",
    "jamba": f"<tool_calls>[\n{CALL}\n]</tool_calls>",
    "hy_v3": "<tool_calls>\n<tool_call>get_order_details<tool_sep>",
    "phi4_mini_json": f"functools[{CALL}]",
    "xlam": f"[{CALL}]",
    "xlam, fenced": f"```json\n[{CALL}]\n```",
    "internlm": f"<|action_start|><|plugin|>{CALL}<|action_end|>",
    "lfm2": "<|tool_call_start|>[get_order_details(order_id='#W1')]<|tool_call_end|>",
    "cohere_command3": "<|START_ACTION|>[]<|END_ACTION|>",
    "olmo3": "<function_calls>get_order_details(order_id='#W1')</function_calls>",
    "apertus": '<|tools_prefix|>[{"get_order_details": {}}]<|tools_suffix|>',
    "gemma4": "<|tool_call>call:get_order_details{}<tool_call|>",
    "": 'Action: get_order_details\nAction Input: {"order_id": "#W1"}',
    ", of a kind that nobody knows yet": '<acme:function_call tool="get_order_details">',
}

HARMLESS = (
    "Hello.",
    "",
    LONG,
    'Your profile says {"name": "Yusuf Rossi", "zip": "19122"}, is that right?',
    'These are the parameters that you gave: {"size": "L", "colour": "red"}.',
    "[1] the lamp, [2] the desk (both of them are on their way)",
    "It costs 3 < 5 dollars; a<b, and <strong>bold</strong> words are only bold.",
    "I would use get_order_details(order_id) for that, but your order is not in the system.",
    "calculate (as you asked) the refund: 3 + 4 = 7",
    "```python\nprint('hello')\n```",
    "To call the function of the lamp, press the button.",
)


async def ask(opened, answer, messages=ASKED, tools=TOOLS, role=Role.AGENT):
    opened.role = role
    reply = await opened.client.complete(CallTag(role=role), messages, tools)
    return reply.record.flags


def flags(text="", *calls, tools=TOOLS, messages=ASKED, role=Role.AGENT, reason="stop", thinking=""):
    made = tuple(ToolCall("1", name, arguments) for name, arguments in calls)
    return answer_flags(Completion(text, made, reason, thinking), tools, messages, role)


@pytest.mark.parametrize("name", UNPARSED)
async def test_a_call_that_the_server_left_in_the_text_is_told_with_the_parser_that_reads_it(name, open_client):
    async with ScriptedServer(UNPARSED[name]) as server, open_client(server) as opened:
        reply = await opened.client.complete(CallTag(role=Role.AGENT), ASKED, TOOLS)
    parser = name.partition(",")[0]
    assert reply.record.flags == (f"unparsed_call:{parser}" if parser else "unparsed_call",)
    assert reply.record.flagged_text == " ".join(UNPARSED[name].split())[:300]
    assert reply.text == UNPARSED[name], "a flag changes no answer"
    assert reply.record.tool_calls == 0


def test_every_parser_that_is_named_is_one_that_the_table_is_tried_with():
    named = {parser for _, parser, *_ in packaged_yaml("tautools.llm", "answers.yaml")["calls"]}
    tried = {call_markup(text, {"get_order_details", "list_all_product_types"}) for text in UNPARSED.values()}
    rare = {"longcat", "dots", "step3", "muse_glimmer", "k2_horizon", "functiongemma", "plamo3", "gigachat3"}
    assert named - tried <= rare


@pytest.mark.parametrize("text", HARMLESS)
def test_an_agent_that_quotes_json_or_code_calls_nothing(text):
    assert set(flags(text)) <= {"empty"}


async def test_an_answer_is_flagged_for_how_it_ended(open_client):
    cut = Say("I have looked at", finish_reason="length")
    only_thought = Say("", thinking=f"<tool_call>{CALL}</tool_call>")
    async with ScriptedServer([cut, Say(""), only_thought]) as server, open_client(server) as opened:
        assert await ask(opened, cut) == ("cut",)
        assert await ask(opened, "") == ("empty",)
        assert await ask(opened, only_thought) == ("empty", "call_in_thinking")


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("get_order_details", None),
        ("get_order_details<|channel|>commentary", "leaked_name"),
        ("functions.get_order_details", "leaked_name"),
        ("default_api.get_order_details", "leaked_name"),
        ("functions.get_order_details:0", "leaked_name"),
        ("get_order_details<|im_end|>", "leaked_name"),
        ("get_order_details\n", "leaked_name"),
        ("assistant<|channel|>analysis", "leaked_name"),
        ("", "unknown_tool"),
        ("track_parcel", "unknown_tool"),
        ("respond", None),
    ],
)
async def test_a_call_that_names_no_tool_is_told_from_one_whose_name_has_a_leak(name, flag, open_client):
    async with ScriptedServer(Say(calls=[(name, {"order_id": "#W1"})])) as server, open_client(server) as opened:
        assert await ask(opened, name) == ((flag,) if flag else ())


@pytest.mark.parametrize(
    "text",
    [
        "All done.<|im_end|>",
        "Sure.<|eot_id|><|start_header_id|>assistant<|end_header_id|>",
        "Done.</s>",
        "Done.<end_of_turn>",
        "[/INST] Of course.",
        "<|start|>assistant<|channel|>final<|message|>Hello.",
        "<｜end▁of▁sentence｜>",
        "</tool_call>",
        "<thinking>He wants a refund.</thinking> Of course.",
    ],
)
def test_a_marker_of_a_template_is_told(text):
    assert flags(text) == ("leaked_marker",)
    assert flags(text, ("get_order_details", "{}")) == ("leaked_marker",)


def test_the_same_words_or_call_as_before_are_told_and_short_ones_are_not():
    said = [*ASKED, {"role": "assistant", "content": LONG}, {"role": "user", "content": "And now?"}]
    assert flags(LONG, messages=said) == ("repeated",)
    assert flags(f"{LONG} Else?", messages=said) == ()
    polite = "Is there anything else that I can do for you?"
    asked = [
        *ASKED,
        {"role": "assistant", "content": polite},
        ASKED[1],
        {"role": "assistant", "content": LONG},
        ASKED[1],
    ]
    assert flags(polite, messages=asked[:-2]) == ("repeated",)
    assert flags(polite, messages=asked) == (), "asked twice in a conversation"
    assert flags(LONG, messages=[*asked, asked[2], ASKED[1]]) == ("repeated",)
    action = [{"role": "assistant", "content": f"Action:\n{CALL}"}, {"role": "user", "content": "API output: {}"}]
    assert flags(action[0]["content"], tools=None, messages=[*ASKED, *action]) == ()
    assert flags(action[0]["content"], tools=None, messages=[*ASKED, *action, *action]) == ("repeated",)
    short = [*ASKED, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Sure?"}]
    assert flags("Yes.", messages=short) == ()
    call = ToolCall("1", "get_order_details", '{"order_id": "#W1"}')
    once = [{"role": "assistant", "content": "", "tool_calls": [call.as_message()]}]
    once.append({"role": "tool", "tool_call_id": "1", "content": "Error: order not found"})
    again = ("get_order_details", '{"order_id":"#W1"}')
    made = [*ASKED, *once, *once]
    assert flags("", again, messages=made) == ("repeated",)
    assert flags("", again, messages=[*ASKED, *once]) == (), "once again is what tau2's own references do"
    assert flags("", ("get_order_details", '{"order_id":"#W2"}'), messages=made) == ()


def test_a_customer_that_repeats_the_agent_or_speaks_as_one_is_told():
    heard = [ASKED[0], {"role": "user", "content": LONG}]
    as_user = {"role": Role.USER, "tools": None}
    assert flags(LONG, messages=heard, **as_user) == ("echo",)
    assert flags(f"You said:\n{LONG} Is that so?", messages=heard, **as_user) == ("echo",)
    assert flags("Thank you!", messages=[ASKED[0], {"role": "user", "content": "Thank you!"}], **as_user) == ()
    for text in ("Hi! How can I help you today?", "Could you please provide your order number?", "Agent: of course."):
        assert flags(text, **as_user) == ("agent_voice",)
        assert flags(text) == (), "an agent may speak like one"
    assert flags(f"<tool_call>{CALL}</tool_call>", **as_user) == ("agent_voice",)
    for text in (
        "ok",
        "Yes, please go on.",
        "My order number is #W1, and I'd like to return it.",
        "Thanks. ###STOP###",
    ):
        assert flags(text, messages=heard, **as_user) == ()


def test_what_is_certain_is_a_long_text_word_for_word():
    assert says_the_same(f" {LONG}\n", LONG.replace(". ", ".\n"))
    assert not says_the_same(f"{LONG} ###STOP###", LONG)
    assert not says_the_same("Have a great day!", "Have a great day!")
    assert not says_the_same("", "")


def test_each_role_is_asked_for_other_things():
    tagged = f"<tool_call>{CALL}</tool_call>"
    assert flags(tagged, role=Role.EXPERT) == (), "an expert is asked for such tags"
    assert flags(tagged, tools=None) == ("native_call:hermes",)
    assert flags(f"Action:\n{CALL}", tools=None) == (), "act and react write their calls so"
    assert flags('{"verdicts": []}', tools=None, role=Role.JUDGE) == ()
    assert flags("", role=Role.PROBE) == ()


async def test_a_key_that_an_answer_repeats_is_not_recorded(open_client):
    key = "sk-very-secret-0123456789"
    remember_secret(key)  # as the reader of a key does
    async with ScriptedServer(f"{key}<|im_end|>", key=key) as server, open_client(server) as opened:
        reply = await opened.client.complete(CallTag(role=Role.AGENT), ASKED, TOOLS)
    assert reply.record.flags == ("leaked_marker",)
    assert key not in reply.record.model_dump_json()


def test_every_flag_has_its_words():
    for flag in packaged_yaml("tautools.llm", "answers.yaml")["flags"]:
        several, cause = flag_words(flag)
        assert re.match(r"[a-z]+ ", several)
        assert cause
        assert "{" not in cause
        assert flag_words(flag, 1)[0] != several
    assert flag_words("unparsed_call:hermes")[1] == "the server lacks --tool-call-parser hermes"
    assert "spoils" in flag_words("unparsed_call:hermes", calls_parsed=True)[1]
    assert flag_words("of_the_future")[0] == "are flagged of_the_future"


def test_names_are_freed_of_what_formats_put_around_them():
    for name in ("x", "functions.x", "functions.x:0", "x<|channel|>commentary", '"x"', "x\n", "tools.api.x", "x("):
        assert plain_name(name) == "x"


text = st.text() | st.sampled_from([*UNPARSED.values(), *HARMLESS, "\ud800", "<" * 5000, '{"name": "' * 3000])


@given(text, st.lists(st.tuples(text, text), max_size=3), text, st.sampled_from(Role), st.booleans())
def test_no_answer_whatever_raises(said, calls, heard, role, offered):
    messages = [*ASKED, {"role": "assistant", "content": None}, {"role": "user", "content": heard}]
    told = flags(said, *calls, tools=TOOLS if offered else None, messages=messages, role=role, thinking=heard)
    assert all(flag_words(flag)[1] for flag in told)
    json.dumps(told)
