"""Tables and figures of record."""
