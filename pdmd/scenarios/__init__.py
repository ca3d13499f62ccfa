"""One room a kind of scenario: its data, networks of its own, and figures."""
