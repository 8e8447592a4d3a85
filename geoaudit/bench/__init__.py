"""Public benches: how often the auditor is right, and how good its labels are."""
