"""Import results of other programs: tau-bench v1, tau2-bench, inspect, and `num_trials-<n>.json` of our own.

`import_results` does all of it. Its parts: `read_files` reads files, however damaged, and says what each row is;
`plan_import` decides what is kept, and why the rest is not, and changes nothing; `write_import` writes what the plan
keeps through the ledger's own writer.
"""

from tautools.importers.importing import ImportResult, import_results, read_files, write_import
from tautools.importers.plan import ImportRequest, plan_import
from tautools.importers.rows import RowStatus
