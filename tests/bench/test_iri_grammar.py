"""jsonschema loads quickly, and nothing of it or of the grammar's package is lost."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from tautools.imports import without_iri_grammar

with without_iri_grammar():
    import jsonschema
assert "rfc3987_syntax" not in sys.modules
validator = jsonschema.Draft7Validator({"type": "object", "properties": {"n": {"type": "integer"}}})
assert validator.is_valid({"n": 1}) and not validator.is_valid({"n": "1"})

with without_iri_grammar():
    import rfc3987_syntax
assert rfc3987_syntax.is_valid_syntax("iri", "http://example.org/")
print("all is there")
"""


def test_the_grammar_is_left_out_only_while_jsonschema_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stdout == "all is there\n", done.stderr


def test_a_benchmark_env_loads_without_the_grammar() -> None:
    code = "import sys; from tautools.bench import open_source; open_source().domain('airline'); "
    code += "print('jsonschema' in sys.modules, 'rfc3987_syntax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"
