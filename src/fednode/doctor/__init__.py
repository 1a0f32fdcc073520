"""What may be wrong with a machine before anybody has trained on it: one subject a file, each answers with `Finding`s.

Nothing here changes anything, registers anything or prints. `cli/doctor.py` tells what was found.
"""
