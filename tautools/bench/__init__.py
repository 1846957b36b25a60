"""The benchmark: tasks, tools, users, agents, the conversation loop, rewards.

Tasks, tools, databases, policies and prompts come from the benchmark's own package at run time, through one interface
(`types`); the loop is ours, because what the harness costs decides how true the measured latencies are.
"""

from tautools.bench.analysis.replay import null_baseline, reference_reward
from tautools.bench.conversation import run_conversation
from tautools.bench.judge import ask_judge, judge_texts, needs_judge, with_verdicts
from tautools.bench.setting import approach_of, build_setting, check_approach, conversation_seed, select_tasks
from tautools.bench.sources import open_domain, open_ref, open_source
