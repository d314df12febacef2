"""The insides of the Python interpreter that make a fork cheap, each with what to do without it."""
