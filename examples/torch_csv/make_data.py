"""Made-up patients: three hospitals that see different people, one CSV each. `python make_data.py` writes them.

Synthetic: the numbers are drawn, and the outcome is made of them by a formula. Nothing medical can be learnt from it.
"""

import csv
from pathlib import Path

import numpy as np

HOSPITALS = {"hospital-a": (45, 0.2, 400), "hospital-b": (68, 0.4, 250), "hospital-c": (57, 0.6, 150)}
COLUMNS = ("patient", "age", "systolic", "glucose", "smoker", "outcome")


def main() -> None:
    rng = np.random.default_rng(11)
    for hospital, (mean_age, share_of_smokers, num_patients) in HOSPITALS.items():
        Path(hospital).mkdir(exist_ok=True)
        with Path(hospital, "patients.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)
            for number in range(num_patients):
                age, smoker = rng.normal(mean_age, 10), int(rng.random() < share_of_smokers)
                for _ in range(rng.integers(1, 4)):             # a patient comes up to three times
                    systolic, glucose = rng.normal(110 + 0.4 * age, 12), rng.normal(90 + 0.3 * age, 18)
                    risk = 0.08 * (age - 58) + 0.05 * (systolic - 133) + 0.03 * (glucose - 107) + 1.5 * (smoker - 0.4)
                    outcome = int(rng.random() < 1 / (1 + np.exp(-1.5 * risk)))
                    seen = f"{glucose:.0f}" if rng.random() > 0.05 else ""       # not everything is measured
                    table.writerow((f"{hospital}-{number}", f"{age:.0f}", f"{systolic:.0f}", seen, smoker, outcome))


if __name__ == "__main__":
    main()
