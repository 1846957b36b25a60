"""The balloon company's tools."""

import json
from typing import Any

from tau_bench.envs.tool import Tool, described

TEXT = {"type": "string", "description": "Plain text."}
LIST = {"type": "array", "description": "A list.", "items": {}}


class GetUserDetails(Tool):
    @staticmethod
    def invoke(data: dict[str, Any], user_id: str) -> str:
        return json.dumps(data["users"][user_id]) if user_id in data["users"] else "Error: nobody has this id"

    @staticmethod
    def get_info() -> dict[str, Any]:
        return described("get_user_details", "Read who somebody is.", user_id=TEXT)


class GetReservationDetails(Tool):
    @staticmethod
    def invoke(data: dict[str, Any], reservation_id: str) -> str:
        return json.dumps(data["reservations"][reservation_id])

    @staticmethod
    def get_info() -> dict[str, Any]:
        return described("get_reservation_details", "Read a reservation.", reservation_id=TEXT)


class SearchDirectFlight(Tool):
    @staticmethod
    def invoke(data: dict[str, Any], origin: str, destination: str, date: str) -> str:
        ways = [
            each for each in data["flights"].values() if (each["origin"], each["destination"]) == (origin, destination)
        ]
        return json.dumps([each["flight_number"] for each in ways if each["seats"].get(date)])

    @staticmethod
    def get_info() -> dict[str, Any]:
        return described("search_direct_flight", "Find flights.", origin=TEXT, destination=TEXT, date=TEXT)


class BookReservation(Tool):
    @staticmethod
    def invoke(
        data: dict[str, Any], user_id: str, flight_number: str, date: str, passengers: list[str], payments: list[dict]
    ) -> str:
        user, flight = data["users"][user_id], data["flights"][flight_number]
        if flight["seats"].get(date, 0) < len(passengers):
            return "Error: no seat is free"
        if sum(payment["amount"] for payment in payments) != flight["price"] * len(passengers):
            return f"Error: it costs {flight['price'] * len(passengers)}"
        name = f"N{len(data['reservations'])}"
        data["reservations"][name] = {
            "reservation_id": name,
            "user_id": user_id,
            "flight_number": flight_number,
            "date": date,
            "passengers": passengers,
            "payments": payments,
        }
        flight["seats"][date] -= len(passengers)
        user["reservations"].append(name)
        return json.dumps(data["reservations"][name])

    @staticmethod
    def get_info() -> dict[str, Any]:
        return described(
            "book_reservation",
            "Book seats.",
            user_id=TEXT,
            flight_number=TEXT,
            date=TEXT,
            passengers=LIST,
            payments=LIST,
        )


class AddPayment(Tool):
    @staticmethod
    def invoke(data: dict[str, Any], reservation_id: str, amount: float) -> str:
        data["reservations"][reservation_id]["payments"].append({"id": "card_1", "amount": amount})
        return json.dumps(data["reservations"][reservation_id])

    @staticmethod
    def get_info() -> dict[str, Any]:
        amount = {"type": "number", "description": "Money."}
        return described("add_payment", "Take a further payment.", reservation_id=TEXT, amount=amount)


class CancelReservation(Tool):
    @staticmethod
    def invoke(data: dict[str, Any], reservation_id: str) -> str:
        reservation = data["reservations"][reservation_id]
        del data["reservations"][reservation_id]
        data["users"][reservation["user_id"]]["reservations"].remove(reservation_id)
        return "given back"

    @staticmethod
    def get_info() -> dict[str, Any]:
        return described("cancel_reservation", "Give seats back.", reservation_id=TEXT)


class TransferToHumanAgents(Tool):
    @staticmethod
    def invoke(data: dict[str, Any], summary: str) -> str:
        return "A colleague takes over"

    @staticmethod
    def get_info() -> dict[str, Any]:
        return described("transfer_to_human_agents", "Hand over to a colleague.", summary=TEXT)


ALL_TOOLS = [
    GetUserDetails,
    GetReservationDetails,
    SearchDirectFlight,
    BookReservation,
    AddPayment,
    CancelReservation,
    TransferToHumanAgents,
]
