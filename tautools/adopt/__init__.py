"""Takes over results of other programs: tau-bench v1, tau2-bench, inspect, and `num_trials-<n>.json` of our own.

`read_files` reads them, however damaged, and says of each row what it is; `plan_adoption` decides what is kept, and why
the rest is not, and changes nothing; `carry_out` writes what the plan keeps through the ledger's own writer.
"""

from tautools.adopt.enter import carry_out
from tautools.adopt.plan import Adoption, plan_adoption
from tautools.adopt.read import read_files
from tautools.adopt.rows import Facts, Fate, Found, SourceFile

__all__ = ["Adoption", "Facts", "Fate", "Found", "SourceFile", "carry_out", "plan_adoption", "read_files"]
