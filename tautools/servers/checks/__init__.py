"""The checks that verify a server: from "a process runs" to a certificate."""
