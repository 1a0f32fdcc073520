"""Made-up wells: two sites with other ranges of depth and salt, one CSV each. `python make_data.py` writes them."""

from pathlib import Path

import numpy as np

SITES = {"north": (0.0, 40.0), "south": (30.0, 90.0)}       # depths in m
NUM_WELLS = 240


def main() -> None:
    rng = np.random.default_rng(7)
    for site, (top, bottom) in SITES.items():
        depth, salt = rng.uniform(top, bottom, NUM_WELLS), rng.gamma(2.0, 0.5, NUM_WELLS)
        warmth = 8.0 + 0.06 * depth - 0.8 * salt + rng.normal(0, 0.25, NUM_WELLS)
        Path(site).mkdir(exist_ok=True)
        table = np.stack([depth, salt, warmth], axis=1)
        np.savetxt(Path(site, "wells.csv"), table, "%.3f", ",", header="depth_m,salt,warmth_c", comments="")


if __name__ == "__main__":
    main()
