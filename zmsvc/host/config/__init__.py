"""Read context files: from XML to `core.model`, each fault with its line."""
