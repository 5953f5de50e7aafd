"""`python -m bench.retraining --data products`: `shoplens retrain` on a whole catalogue, from its labels to the gate.

The data is in the format of the Rakuten challenge, with `categories.csv` beside it. Tree and products are imported by
the commands first; every product has the category of `Y`, which counts as the word of a person. The commands run as
processes of their own; the time of the import is shown beside that of the retraining.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.__main__ import heading, print_table
from bench.catalogue_run import watched
from shoplens.serving.cores import usable_cores

_COLUMNS = ("step", "wall s", "CPU s", "peak MB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.retraining", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="starter-catalogue")
    parser.add_argument("--models-dir", type=Path, default=Path("shoplens-data/models"))
    parser.add_argument("--place", type=Path, default=None, help="where the data is; a folder on a disk")
    options = parser.parse_args()
    print(heading(usable_cores()))
    with tempfile.TemporaryDirectory(dir=options.place) as name:
        folder = Path(name)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SHOPLENS_")} | {
            "SHOPLENS_DATA_DIR": str(folder / "data"),
            "SHOPLENS_MODELS_DIR": str(options.models_dir.absolute()),
            "SHOPLENS_CHANNELS__CATALOGUE__MODEL": options.model,
            "SHOPLENS_CHANNELS__CATALOGUE__CATALOGUE": "{}",
        }
        tree = write_tree(options.data / "categories.csv", folder / "tree.csv")
        table, codes, photos = (str(options.data / each) for each in ("X.csv", "Y.csv", "images"))
        steps = {
            "import the tree": ["catalogue", "tree", "import", str(tree)],
            "import the products": ["catalogue", "import", table, "--categories", codes, "--photos", photos],
            "retrain": ["retrain", "catalogue"],
        }
        rows = []
        for step, command in steps.items():
            found = watched([sys.executable, "-m", "shoplens", *command], environment)
            rows.append((step, f"{found.wall_s:.0f}", f"{found.cpu_s:.0f}", f"{max(found.memory_mb):.0f}"))
        print_table(_COLUMNS, iter(rows))
        report = subprocess.run(
            [sys.executable, "-m", "shoplens", "retrain", "report"],
            env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        print(f"\n{report.stdout}")


def write_tree(codes: Path, tree: Path) -> Path:
    """A tree whose leaves have the codes of the data as their ids."""
    with codes.open(encoding="utf-8", newline="") as source, tree.open("w", encoding="utf-8", newline="") as target:
        rows = csv.writer(target)
        rows.writerow(("id", "path"))
        rows.writerows((row["prdtypecode"], row["path"]) for row in csv.DictReader(source))
    return tree


if __name__ == "__main__":
    main()
