"""The paper's tables and figures by number, made of finished runs."""
