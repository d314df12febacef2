"""Reads context files: XML and schema to `core.model`, every fault with its line."""
