"""A task in a long-lived child process: frameworks are imported once; a crash, a hang or a cancel costs the child only.

`child` is what a client node and a simulation hold, `link` the process and its pipes, `messages` what is said,
`main` the other side, which ends with its `parent`.
"""
