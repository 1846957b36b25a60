"""The smallest whole use of tautools: a server, two tasks, a score.

    python examples/hello.py

The model is simulated, so no accelerator and no weights are needed. For a real one, name its server file in place of
`sim-large`: `tautools config list servers` lists them. Everything is kept in `hello/`; a second run asks no model.
"""

from __future__ import annotations

from pathlib import Path

import tautools as tt

WORKSPACE = "hello"
SERVER = "sim-large"


def main() -> None:
    """Start a server, run two tasks of tau2's retail env, print the score, stop the server."""
    Path(WORKSPACE).mkdir(exist_ok=True)
    servers = tt.launch(SERVER, workspace=WORKSPACE)
    try:
        servers.wait_ready(on_check=print)
        result = tt.run(
            env="retail",
            strategy="fc",
            server=SERVER,  # the agent
            user_server=SERVER,  # the same model plays the customer
            limit=2,
            workspace=WORKSPACE,
        )
    finally:
        servers.stop()
    print(result)
    tt.show(workspace=WORKSPACE)


if __name__ == "__main__":
    main()
