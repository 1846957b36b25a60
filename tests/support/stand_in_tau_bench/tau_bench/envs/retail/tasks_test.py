"""Tasks."""

from tau_bench.types import Action, Task

TASKS_TEST = [
    Task(
        user_id="ada_moss_1001",
        instruction="Your name is Ada Moss, your email is ada@tea.example. You want to cancel order #T100.",
        actions=[
            Action(name="find_user_id_by_email", kwargs={"email": "ada@tea.example"}),
            Action(name="cancel_pending_order", kwargs={"order_id": "#T100"}),
        ],
        outputs=[],
    ),
    Task(
        user_id="bo_reed_1002",
        instruction="Your name is Bo Reed and your email is bo@tea.example. You want order #T102 sent to Oslo, zip 0150, and to know its total.",
        actions=[
            Action(name="find_user_id_by_email", kwargs={"email": "bo@tea.example"}),
            Action(name="get_order_details", kwargs={"order_id": "#T102"}),
            Action(name="modify_pending_order_address", kwargs={"order_id": "#T102", "city": "Oslo", "zip": "0150"}),
        ],
        outputs=["1200"],
    ),
    Task(
        user_id="ada_moss_1001",
        instruction="You are Ada Moss, ada@tea.example. You ask which Black Tea order was sent.",
        actions=[
            Action(name="get_order_details", kwargs={"order_id": "#T101"}),
        ],
        outputs=["Black Tea"],
    ),
    Task(
        user_id="ada_moss_1001",
        instruction="You are Ada Moss, ada@tea.example, and want to sell your cups to the shop.",
        actions=[
            Action(name="transfer_to_human_agents", kwargs={"summary": "wants to sell cups"}),
        ],
        outputs=[],
    ),
    Task(
        user_id="ada_moss_1001",
        instruction="You are Ada Moss, ada@tea.example. You want 2.5 back for order #T101.",
        actions=[
            Action(name="pay_refund", kwargs={"order_id": "#T101", "amount": 2.5}),
        ],
        outputs=[],
    ),
    Task(
        user_id="ada_moss_1001",
        instruction="You are Ada Moss, ada@tea.example. You insist that #T101 is cancelled, else #T100.",
        actions=[
            Action(name="cancel_pending_order", kwargs={"order_id": "#T101"}),
            Action(name="cancel_pending_order", kwargs={"order_id": "#T100"}),
        ],
        outputs=[],
    ),
]
