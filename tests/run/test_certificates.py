"""The proof of a run's servers lies beside its results."""

from __future__ import annotations

import json

from served_cells import cell_at, simulated_model

from tautools.run import read_ledger, run_cell
from tautools.servers.attaching import attach


def test_each_run_keeps_the_certificates_of_its_servers(tmp_path):
    with simulated_model() as server:
        proof = attach("mine", server.base_url, workspace=tmp_path).record.certificate
        run = cell_at(server.base_url, limit=1)
        role = run.agent.model_copy(update={"server": "mine", "base_url": None})
        result = run_cell(run.model_copy(update={"agent": role}), workspace=tmp_path)

    (path,) = (result.folder / "certificates").iterdir()
    (row,) = read_ledger(result.folder).values()
    assert path.stem == row.writer
    kept = json.loads(path.read_text())
    assert kept["agent"] == [
        {
            "server": "mine",
            "base_url": server.base_url,
            "model": "sim-4B",
            "certificate": proof.model_dump(mode="json"),
        }
    ]
    assert kept["user"][0]["certificate"] == kept["agent"][0]["certificate"]


def test_of_a_server_that_is_not_registered_only_the_address_is_kept(tmp_path):
    with simulated_model() as server:
        result = run_cell(cell_at(server.base_url, limit=1), workspace=tmp_path)

    (path,) = (result.folder / "certificates").iterdir()
    assert json.loads(path.read_text())["agent"] == [
        {"server": "", "base_url": server.base_url, "model": "sim-4B", "certificate": None}
    ]
