"""The shop's tools."""

import json
from typing import Any

from tau_bench.envs.tool import Tool, described

TEXT = {"type": "string", "description": "Plain text."}
ORDER = {"type": "string", "description": "An order's id, with its number sign, such as #T1."}
AMOUNT = {"type": "number", "description": "Money."}


class FindUserIdByEmail(Tool):
    @staticmethod
    def invoke(data: dict[str, Any], email: str) -> str:
        for user_id, user in data["users"].items():
            if user["email"].lower() == email.lower():
                return user_id
        return "Error: nobody has this email"

    @staticmethod
    def get_info() -> dict[str, Any]:
        return described("find_user_id_by_email", "Find out who writes.", email=TEXT)


class GetOrderDetails(Tool):
    @staticmethod
    def invoke(data: dict[str, Any], order_id: str) -> str:
        return json.dumps(data["orders"][order_id]) if order_id in data["orders"] else "Error: no such order"

    @staticmethod
    def get_info() -> dict[str, Any]:
        return described("get_order_details", "Read an order.", order_id=ORDER)


class CancelPendingOrder(Tool):
    @staticmethod
    def invoke(data: dict[str, Any], order_id: str) -> str:
        order = data["orders"][order_id]
        if order["status"] != "pending":
            return "Error: it was sent"
        order["status"] = "cancelled"
        data["users"][order["user_id"]]["balance"] += order["total"]
        return json.dumps(order)

    @staticmethod
    def get_info() -> dict[str, Any]:
        return described("cancel_pending_order", "Cancel an order that was not sent.", order_id=ORDER)


class ModifyPendingOrderAddress(Tool):
    @staticmethod
    def invoke(data: dict[str, Any], order_id: str, city: str, zip: str) -> str:  # noqa: A002
        order = data["orders"][order_id]
        if order["status"] != "pending":
            return "Error: it was sent"
        order["address"] = {"city": city, "zip": zip}
        return json.dumps(order)

    @staticmethod
    def get_info() -> dict[str, Any]:
        return described("modify_pending_order_address", "Send elsewhere.", order_id=ORDER, city=TEXT, zip=TEXT)


class PayRefund(Tool):
    @staticmethod
    def invoke(data: dict[str, Any], order_id: str, amount: float) -> str:
        order = data["orders"][order_id]
        if amount > order["total"]:
            return f"Error: {amount} is more than {order['total']}"
        order["refund"] = amount
        return json.dumps({"refund": amount})

    @staticmethod
    def get_info() -> dict[str, Any]:
        return described("pay_refund", "Pay back a part of an order.", order_id=ORDER, amount=AMOUNT)


class ListAllProductTypes(Tool):
    @staticmethod
    def invoke(data: dict[str, Any]) -> str:
        return json.dumps(sorted({item["name"] for order in data["orders"].values() for item in order["items"]}))

    @staticmethod
    def get_info() -> dict[str, Any]:
        return described("list_all_product_types", "What the shop has.")


class Think(Tool):
    @staticmethod
    def invoke(data: dict[str, Any], thought: str) -> str:
        return ""

    @staticmethod
    def get_info() -> dict[str, Any]:
        return described("think", "Make a note for yourself.", thought=TEXT)


class TransferToHumanAgents(Tool):
    @staticmethod
    def invoke(data: dict[str, Any], summary: str) -> str:
        return "A colleague takes over"

    @staticmethod
    def get_info() -> dict[str, Any]:
        return described("transfer_to_human_agents", "Hand over to a colleague.", summary=TEXT)


ALL_TOOLS = [
    FindUserIdByEmail,
    GetOrderDetails,
    CancelPendingOrder,
    ModifyPendingOrderAddress,
    PayRefund,
    ListAllProductTypes,
    Think,
    TransferToHumanAgents,
]
