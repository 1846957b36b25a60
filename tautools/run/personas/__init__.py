"""What personas did, read from the records: certificates, wording, comparison with control, a judge's blind labels."""
