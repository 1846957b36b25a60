import json
from pathlib import Path
from typing import Any

TABLES = ("flights", "reservations", "users")


def load_data() -> dict[str, Any]:
    return {name: json.loads((Path(__file__).parent / f"{name}.json").read_text()) for name in TABLES}
