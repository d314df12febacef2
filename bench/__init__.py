"""The benchmark: it compares zmsvc with other service managers and with bare minimal programs. `make bench`
runs it; pytest does not collect it.
"""
