"""Made-up points on two spirals, in one file. `python make_data.py` writes spirals.csv."""

import numpy as np


def main() -> None:
    rng = np.random.default_rng(3)
    kind = rng.integers(0, 2, 1000)
    turn = 0.5 + 3.0 * np.sqrt(rng.random(1000))
    angle = 2 * turn + np.pi * kind
    points = np.stack([turn * np.cos(angle), turn * np.sin(angle)], axis=1) + rng.normal(0, 0.15, (1000, 2))
    table = np.column_stack([points / 3.5, kind])
    np.savetxt("spirals.csv", table, ("%.4f", "%.4f", "%d"), ",", header="x,y,spiral", comments="")


if __name__ == "__main__":
    main()
