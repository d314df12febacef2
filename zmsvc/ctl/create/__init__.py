"""`zmsvcctl create`: makes services and adds them to a context file."""
