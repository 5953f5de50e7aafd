"""An installation whose people have labelled photos of returns: what the weekly jobs find."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from shoplens.platform.parts import build_database
from shoplens.settings import read_settings
from shoplens.storage import open_store
from tests.labelled_photos import people_label
from tests.retraining_shop import photo
from tests.unit.training.colours import COLOURS

LABELS = 36


def labelled_home(root: Path, models_dir: Path) -> Path:
    """A checkout with its environment and settings."""
    (root / "data" / "drop" / "returns").mkdir(parents=True)
    (root / ".venv").symlink_to(Path(sys.executable).parent.parent)
    (root / "shoplens.toml").write_text(
        f'data_dir = "{root / "data"}"\nmodels_dir = "{models_dir}"\n\n[channels.returns.batch]\nquiet_s = 0\n\n'
        '[channels.colours]\nmodel = "colours"\n\n[channels.colours.retraining]\nleast_test_samples = 3\n'
        "most_calibration_error = 1.0\n"
    )
    settings = read_settings(data_dir=root / "data", models_dir=models_dir)
    store = open_store(settings.effective_storage_url)
    names = sorted(COLOURS)
    with closing(build_database(settings)) as database:
        photos = [(photo(number, names[number % 3]), names[number % 3]) for number in range(LABELS)]
        people_label(database, store, "colours", photos)
    return root
