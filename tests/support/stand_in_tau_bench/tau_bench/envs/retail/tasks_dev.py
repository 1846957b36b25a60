"""Tasks."""

from tau_bench.types import Task

TASKS_DEV = [
    Task(
        user_id="bo_reed_1002",
        instruction="You are Bo Reed, bo@tea.example, and only wanted to say hello.",
        actions=[],
        outputs=[],
    ),
]
