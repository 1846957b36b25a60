"""What personas did, read from the records: certificates, wording, comparison with control, a judge's blind labels."""

from __future__ import annotations

from tautools.run.personas.comparison import (
    CERTIFICATE,
    ComparedPersona,
    PersonaCertificate,
    PersonaComparison,
    certify,
    compare,
    keep_certificate,
)
from tautools.run.personas.labels import keep_labels
from tautools.run.personas.pairing import PersonaGroup, groups_of

__all__ = [
    "CERTIFICATE",
    "ComparedPersona",
    "PersonaCertificate",
    "PersonaComparison",
    "PersonaGroup",
    "certify",
    "compare",
    "groups_of",
    "keep_certificate",
    "keep_labels",
]
