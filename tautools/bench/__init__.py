"""The benchmark: tasks, tools, users, agents, the conversation loop, rewards.

Tasks, tools, databases, policies and prompts come from the benchmark's own package at run time, through one interface
(`types`); the loop is ours, because what the harness costs decides how true the measured latencies are.
"""

from __future__ import annotations

from tautools.bench.approach import approach_of, check_approach
from tautools.bench.floor import do_nothing_floor, reference_reward
from tautools.bench.judge import ask_judge, judge_texts, needs_judge, with_verdicts
from tautools.bench.loop import converse
from tautools.bench.seeds import conversation_seed
from tautools.bench.select import select_tasks
from tautools.bench.setting import build_setting
from tautools.bench.sources import benchmarks, open_source

__all__ = [
    "approach_of",
    "ask_judge",
    "benchmarks",
    "build_setting",
    "check_approach",
    "conversation_seed",
    "converse",
    "do_nothing_floor",
    "judge_texts",
    "needs_judge",
    "open_source",
    "reference_reward",
    "select_tasks",
    "with_verdicts",
]
