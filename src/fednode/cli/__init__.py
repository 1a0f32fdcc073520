"""The command line: one file a command group. The only room that prints.

Commands load what they need when they run: `fednode --help` must answer at once. Start reading at `app`.
"""
