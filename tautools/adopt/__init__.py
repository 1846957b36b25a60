"""Takes over results of other programs: tau-bench v1, tau2-bench, inspect, and `num_trials-<n>.json` of our own.

`adopt` does all of it. Its parts: `read_files` reads files, however damaged, and says of each row what it is;
`plan_adoption` decides what is kept, and why the rest is not, and changes nothing; `carry_out` writes what the plan
keeps through the ledger's own writer.
"""

from tautools.adopt.enter import adopt, carry_out
from tautools.adopt.plan import Adoption, plan_adoption
from tautools.adopt.read import read_files
from tautools.adopt.rows import Facts, Fate, Found, SourceFile
from tautools.adopt.settle import Wish

__all__ = [
    "Adoption",
    "Facts",
    "Fate",
    "Found",
    "SourceFile",
    "Wish",
    "adopt",
    "carry_out",
    "plan_adoption",
    "read_files",
]
