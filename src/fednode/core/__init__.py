"""Words and maths: no I/O, no clock, no globals; numpy and the standard library only."""
