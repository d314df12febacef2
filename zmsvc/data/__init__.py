"""Shipped, not code: the schema, the templates and the man pages."""
