"""Everything that is measured, a module each. A figure is taken from an open session and gives plain
numbers by name.
"""
