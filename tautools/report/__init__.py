"""From records to tables, figures, HTML and Markdown.

`pass_report` and `latency_report` compute what notebooks 30 and 31 show; `build_reports` executes both and writes the
pages. Everything is read from the ledger's folders; no model is asked.
"""

from tautools.report.build import ReportPaths, build_reports, how_to_open
from tautools.report.cells import find_cells
from tautools.report.frames import conversation_frame
from tautools.report.latency import latency_report
from tautools.report.pass_k import pass_report
