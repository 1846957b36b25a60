"""`python -m tautools.simulate`: the process behind a server of the engine `simulate`."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from tautools.errors import TautoolsError
from tautools.params.models import SimulateParams
from tautools.simulate.server import MARK, SimulatedServer, serve_until_signal

_log = logging.getLogger("tautools.simulate")


def main(words: Sequence[str] | None = None) -> int:
    """Serve in the foreground; return the exit status: 0 ended by a signal, 1 could not start, 2 bad input."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(asctime)s %(message)s")
    parser = argparse.ArgumentParser("python -m tautools.simulate", description="A SIMULATED model server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 for a free one")
    parser.add_argument("--model", default="simulated", help="served model name")
    parser.add_argument("--alias", nargs="+", action="extend", default=[], help="further served names")
    for name, field in SimulateParams.model_fields.items():
        flag = f"--{name.replace('_', '-')}"  # argparse takes any unambiguous beginning: `--prefill-ms-per-1k`
        parser.add_argument(flag, type=type(field.default), default=field.default, help=field.description)
    given = parser.parse_args(words)
    try:
        params = SimulateParams(**{name: getattr(given, name) for name in SimulateParams.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        parser.error(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}")
    key = os.environ.get("VLLM_API_KEY", "")
    server = SimulatedServer(params, model=given.model, aliases=given.alias, key=key, host=given.host, port=given.port)
    try:
        serve_until_signal(server, _log_start)
    except TautoolsError as error:
        _log.error("%s", error)
        return 1
    _log.info("%s model server ended.", MARK)
    return 0


def _log_start(server: SimulatedServer) -> None:
    _log.info("%s model server: %s", MARK, server.params.model_dump_json())
    _log.info("Serving %s on %s", ", ".join(server.names), server.base_url)


if __name__ == "__main__":
    sys.exit(main())
