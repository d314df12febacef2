"""The brain of a context: facts in, `core.engine.step`, save, orders out. A child of the keeper that may
crash at any line.
"""
