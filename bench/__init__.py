"""The benchmark: zmsvc beside other service managers and beside the bare floors. `make bench` runs it;
pytest never collects it.
"""
