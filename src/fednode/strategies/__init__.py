"""One published algorithm a file, its paper in the docstring. Pure and frozen; fields are settings."""
