# What type checkers and editors see of `import tautools as tt`; the verbs load when they are used.

from tautools.verbs import doctor as doctor
from tautools.verbs import import_results as import_results
from tautools.verbs import launch as launch
from tautools.verbs import plan as plan
from tautools.verbs import report as report
from tautools.verbs import run as run
from tautools.verbs import servers as servers
from tautools.verbs import show as show
from tautools.verbs import status as status
from tautools.verbs import verify as verify

__version__: str
