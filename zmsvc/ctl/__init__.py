"""The process zmsvcctl: asks, shows, and makes files. What an order means is decided by the supervisor,
never here.
"""
