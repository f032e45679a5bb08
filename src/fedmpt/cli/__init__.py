"""The command line, one module a command: words in, a call, tables out.

It may import everything, and nothing imports it.
"""
