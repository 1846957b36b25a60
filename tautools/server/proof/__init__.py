"""The ladder of probes and its rungs: from "a process runs" to a certificate."""
