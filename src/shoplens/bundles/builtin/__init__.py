"""The models that come with Shoplens: made on this machine from weights in pinned packages, cached, verified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shoplens.bundles.builtin.recipes import RECIPES, Recipe
from shoplens.bundles.bundle import Bundle, open_bundle, write_bundle
from shoplens.bundles.probe import open_session, probe_scores
from shoplens.errors import BundleUnverified, ModelNotFound

Progress = Callable[[str], None]


def builtin_names() -> tuple[str, ...]:
    """The names of the built-in models."""
    return tuple(RECIPES)


def prepare_builtin(name: str, models_dir: Path, progress: Progress | None = None) -> Bundle:
    """The built-in bundle `name` below `models_dir`, made first if it is not there yet; always verified.

    `progress` gets one sentence per step. Safe when several processes do it at once. Raises ModelNotFound for an
    unknown name, BundleUnverified when the model does not compute what was recorded, and what `open_bundle` raises.
    """
    if name not in RECIPES:
        raise ModelNotFound(f"There is no built-in model {name!r}; there are {', '.join(RECIPES)}.")
    recipe = RECIPES[name]
    root = models_dir / name / recipe.manifest.version
    return open_bundle(root) if root.exists() else _built(recipe, root, progress or _silent)


def verify_builtin(bundle: Bundle) -> None:
    """Raises BundleUnverified unless the built-in `bundle` computes, here and now, what was recorded for its name."""
    check_recorded(bundle.model_path.read_bytes(), RECIPES[bundle.ref.name])


def check_recorded(model: bytes, recipe: Recipe) -> None:
    """Raises BundleUnverified unless `model` gives the probe pictures the scores that `recipe` has recorded."""
    scores = probe_scores(open_session(model, optimise=True), recipe.manifest)
    for index, best in enumerate(recipe.recorded):
        for label, expected in best:
            if abs(float(scores[index, label]) - expected) > recipe.tolerance:
                raise BundleUnverified(
                    f"{recipe.manifest.name} gives probe {index} the score {scores[index, label]:.4f} for "
                    f"{recipe.labels[label].name!r}, not {expected:.4f} as recorded; do not use it on this machine."
                )


def _built(recipe: Recipe, root: Path, progress: Progress) -> Bundle:
    progress(f"Building {recipe.manifest.name} {recipe.manifest.version} from its weights.")
    model = recipe.build()
    progress(f"Verifying {recipe.manifest.name} against its recorded answers.")
    check_recorded(model, recipe)
    return write_bundle(
        root,
        manifest=recipe.manifest,
        labels=recipe.labels,
        card=recipe.card,
        model=model,
        evaluation=recipe.evaluation,
    )


def _silent(_sentence: str) -> None:
    """Say nothing."""
