"""Many simulated servers in one process, each on a port of its own and registered as proven.

    python many_servers.py WORKSPACE COUNT

Writes `ready` when all answer, and ends when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from pathlib import Path

from tautools.params.models import SimulateParams
from tautools.records import Certificate, Check, ServerRecord
from tautools.servers import Registry
from tautools.shell import this_process
from tautools.simulate.server import SimulatedServer


async def main(workspace: Path, count: int) -> None:
    registry, me = Registry(workspace), this_process()
    async with contextlib.AsyncExitStack() as stack:
        for number in range(count):
            name, alias = f"sim-{number:02}", f"launch-{number:016x}"
            key, key_file = registry.new_key(name)
            server = SimulatedServer(SimulateParams(speed=0), model=f"{name}-model", aliases=[alias], key=key)
            await stack.enter_async_context(server)
            record = ServerRecord(
                name=name,
                engine="simulate",
                model=f"{name}-model",
                alias=alias,
                base_url=server.base_url,
                key_file=str(key_file),
                pid=me.pid,
                pid_started_at=me.started_at,
                host=socket.gethostname(),
                started_at=time.time(),
                simulated=True,
            )
            registry.add(record)
            proof = Certificate(
                server=name,
                base_url=server.base_url,
                model=record.model,
                alias=alias,
                issued_at=time.time(),
                checks=[Check(number=2, name="health", passed=True)],
                simulated=True,
            )
            registry.certify(record.model_copy(update={"certificate": proof}))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
