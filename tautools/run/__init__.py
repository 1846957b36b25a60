"""One cell: what is pending, scheduling, ledger, events.

`prepare_cell` plans and changes nothing on disk, `run_cell` does what is pending and can be stopped at any moment,
`read_ledger` says what is finished.
"""

from tautools.run.cell import CellResult, run_cell
from tautools.run.folder import SettingFolder, model_slug, read_setting, results_of
from tautools.run.ledger import Key, read_calls, read_conversation, read_events, read_ledger
from tautools.run.plan import Cell, prepare_cell
from tautools.run.scheduler import Stop
