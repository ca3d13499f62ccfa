"""The report: one page of all results, that needs no network and no other file."""
