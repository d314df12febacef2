"""The verbs of zmsvcctl, a module for each group of verbs."""
