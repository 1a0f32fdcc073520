"""The same loop and the same visit, without processes in between or with as many as there are cores."""
