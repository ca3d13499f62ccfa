"""What is asked for: settings, scenarios, methods, and where results lie."""
