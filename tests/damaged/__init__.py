"""Thousands of damaged files, given to the commands as a user would.

Whatever a file holds, a command must accept it or refuse it in one line: no traceback, nothing half-written,
no foreign code. `make test` tries some damages of each kind, always the same ones; `make fuzz` tries many.
"""
