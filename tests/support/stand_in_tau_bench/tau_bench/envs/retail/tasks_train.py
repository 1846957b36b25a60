"""Tasks."""

from tau_bench.types import Action, Task

TASKS_TRAIN = [
    Task(
        user_id="bo_reed_1002",
        instruction="You are Bo Reed, bo@tea.example. You want 2 back for order #T102.",
        actions=[
            Action(name="pay_refund", kwargs={"order_id": "#T102", "amount": 2}),
        ],
        outputs=[],
    ),
    Task(
        user_id="bo_reed_1002",
        instruction="You are Bo Reed, bo@tea.example. You want to cancel #T102.",
        actions=[
            Action(name="cancel_pending_order", kwargs={"order_id": "#T102"}),
        ],
        outputs=[],
    ),
]
