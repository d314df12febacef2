"""The process that reads the output of tasks: of all of them, or only of those that become ready by a line of
it.
"""
