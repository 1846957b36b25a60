"""What personas did, read from the records: certificates, wording, comparison with control, a judge's blind labels."""

from tautools.run.personas.certificate import CERTIFICATE, PersonaCertificate, certify, keep_certificate
from tautools.run.personas.compare import Compared, Comparison, compare
from tautools.run.personas.label import keep_labels
from tautools.run.personas.pairing import Group, groups_of

__all__ = [
    "CERTIFICATE",
    "Compared",
    "Comparison",
    "Group",
    "PersonaCertificate",
    "certify",
    "compare",
    "groups_of",
    "keep_certificate",
    "keep_labels",
]
