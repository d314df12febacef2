"""The process that holds the stored descriptors of tasks."""
