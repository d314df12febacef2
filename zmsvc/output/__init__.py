"""The process that reads the output of tasks: of all, or of those that are ready by a line of it alone."""
