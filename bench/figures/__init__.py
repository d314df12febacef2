"""The measurements, a module each. Each takes an open session, and returns numbers by name."""
