"""Tasks."""

from tau_bench.types import Action, Task

TASKS = [
    Task(
        user_id="cy_vale_2001",
        instruction="Your user id is cy_vale_2001. You want one seat on BAL2 on 2024-06-01, and then to pay 5 more.",
        actions=[
            Action(
                name="book_reservation",
                kwargs={
                    "user_id": "cy_vale_2001",
                    "flight_number": "BAL2",
                    "date": "2024-06-01",
                    "passengers": ["Cy Vale"],
                    "payments": [{"id": "card_1", "amount": 80}],
                },
            ),
            Action(name="add_payment", kwargs={"reservation_id": "N1", "amount": 5}),
        ],
        outputs=[],
    ),
    Task(
        user_id="cy_vale_2001",
        instruction="Your user id is cy_vale_2001. You want to give R1 back.",
        actions=[
            Action(name="get_user_details", kwargs={"user_id": "cy_vale_2001"}),
            Action(name="cancel_reservation", kwargs={"reservation_id": "R1"}),
        ],
        outputs=[],
    ),
    Task(
        user_id="cy_vale_2001",
        instruction="Your user id is cy_vale_2001. You ask which balloon flies from OST to NOR on 2024-06-01.",
        actions=[
            Action(name="search_direct_flight", kwargs={"origin": "OST", "destination": "NOR", "date": "2024-06-01"}),
        ],
        outputs=["BAL1"],
    ),
]
