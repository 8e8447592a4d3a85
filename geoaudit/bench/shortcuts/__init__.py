"""The bench of planted shortcuts: how often the auditor finds what a network was made to lean on (method section 5)."""
