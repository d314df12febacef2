"""The programs that the benchmark measures, a module each. A contender can start a fleet of tasks;
`bench.figures` measures it.

This module imports nothing: some contenders run as processes of their own, whose memory is measured.
"""
