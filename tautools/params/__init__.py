"""What people write, and where it is found: sites, servers, sweeps, personas, runs in YAML.

Reading is strict: an unknown key is an error that names the nearest known one with file and line, and nothing is
guessed. Precedence: default < file < flag. Every value can tell where it came from (`Resolved`).
"""

from tautools.params.paths import (
    KINDS,
    Kind,
    default_site,
    find_params,
    list_params,
    misnamed_params,
    own_params,
    shipped,
    workspace_path,
)
from tautools.params.personas import CONTROL, Persona
from tautools.params.resolve import (
    RUN_OPTIONS,
    Resolved,
    load_all,
    load_persona,
    load_server,
    load_site,
    load_sweep,
    resolve,
    resolve_run,
    workspace_site,
)
