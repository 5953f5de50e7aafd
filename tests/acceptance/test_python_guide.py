"""The programs of the guide to the Python interface, one after another as in a notebook."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.conftest import colourful, jpeg_of
from tests.support.fusion import write_fusion_bundle

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-from-python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_every_block_of_the_guide_runs_and_prints_what_the_text_says(tmp_path: Path, models_dir: Path) -> None:
    """In a folder with a photo, and with photos of which one is none."""
    (tmp_path / "photo.jpg").write_bytes(jpeg_of(colourful(1)))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(jpeg_of(colourful(2)))
    (tmp_path / "photos" / "b.txt").write_text("no photo")
    models = tmp_path / "models"
    shutil.copytree(models_dir, models, copy_function=os.link)
    write_fusion_bundle(models, name="our-categories")
    for name in ("front.jpg", "back.jpg"):
        (tmp_path / name).write_bytes(jpeg_of(np.full((48, 64, 3), (250, 5, 5), np.uint8)))
    program = 'print("#")\n'.join(BLOCKS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
    environment |= {"SHOPLENS_MODELS_DIR": str(models), "PYTHONWARNINGS": "ignore::ResourceWarning"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr
    one, forms, many, called, decided, embedded, texts, looped, closed = (
        part.strip().splitlines() for part in done.stdout.split("#\n")
    )
    assert len(one) == 4
    assert {one[0].rpartition(" ")[0]} == set(forms)
    assert re.fullmatch(r"a\.jpg: .+", many[0])
    assert re.fullmatch(r"b\.txt: image_unsupported: .+", many[1])
    assert called[0].endswith(" image_missing")
    assert re.fullmatch(r"(accept|review|reject) (nsfw|None) ([\d.]+|None)", decided[0])
    assert ["1.000"] == embedded
    assert ["Colours > Red", "both", "Colours > Red"] == texts
    assert ["['Prediction', 'ImageMissing']"] == looped
    assert "LabelScore" in closed[0]
