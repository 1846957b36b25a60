"""What an agent is."""

from abc import ABC, abstractmethod

from tau_bench.envs.base import Env
from tau_bench.types import SolveResult


class Agent(ABC):
    @abstractmethod
    def solve(self, env: Env, task_index: int | None = None, max_num_steps: int = 30) -> SolveResult:
        raise NotImplementedError
