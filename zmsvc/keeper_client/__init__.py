"""The client of a keeper: what a supervisor needs, and an envoy in its place."""
