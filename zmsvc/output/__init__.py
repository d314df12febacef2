"""The process that reads the output of tasks, if the context does not log to the journal."""
