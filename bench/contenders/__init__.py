"""Everybody who is measured, a module each. Each can open a fleet of tasks; nothing here measures.

Nothing is imported here: some of the modules run as processes as well, which are measured and must hold no
more than they need.
"""
