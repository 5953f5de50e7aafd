"""Retrainings as runs of an MLflow server: parameters, figures, the report and the bundle."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final

from shoplens.registry.mlflow_registry import open_client
from shoplens.retraining.entities import RetrainingRun
from shoplens.telemetry.logs import get_logger

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from shoplens.bundles.bundle import Bundle
    from shoplens.retraining.pipeline import Prepared
    from shoplens.retraining.report import Report

_PARAMETERS: Final = (
    "id", "channel", "model", "candidate", "champion", "recipe", "base", "test", "promote", "label_set", "label_digest",
    "labels", "test_set", "test_digest", "test_samples",
)  # fmt: skip
_log: Final = get_logger(__name__)


class MlflowTracker:
    """One experiment per channel, `shoplens/CHANNEL`. A server that is away never stops a retraining."""

    def __init__(self, url: str) -> None:
        self._client = open_client(url)

    def judged(self, run: RetrainingRun, prepared: Prepared, bundle: Bundle, report: Report) -> RetrainingRun:
        """The run with the id of its run in MLflow; it is written again where the run was continued."""
        del prepared
        from mlflow.exceptions import MlflowException

        try:
            return replace(run, tracked_as=self._track(run, bundle, report))
        except (MlflowException, OSError) as error:
            _log.warning("retraining.not_tracked", run=run.id, reason=str(error))
            return run

    def _track(self, run: RetrainingRun, bundle: Bundle, report: Report) -> str:
        client = self._client
        name = f"shoplens/{run.channel}"
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else client.create_experiment(name)
        tracked = run.tracked_as or client.create_run(experiment, run_name=run.ref).info.run_id
        for parameter in _PARAMETERS:
            if (value := getattr(run, parameter)) is not None:
                self._log_once(tracked, parameter, value)
        for figure, number in report.gate.figures.items():
            client.log_metric(tracked, figure.replace(",", ""), number)
        for place, each in enumerate(report.gate.classes):
            client.log_metric(tracked, "F1 by class", each.after, step=place)
        client.set_tag(tracked, "shoplens.passed", str(report.gate.passed).lower())
        client.log_dict(tracked, asdict(report), "report.json")
        client.log_artifacts(tracked, str(bundle.root), "bundle")
        client.set_terminated(tracked)
        return tracked

    def _log_once(self, tracked: str, parameter: str, value: object) -> None:
        """A parameter of MLflow never changes; the champion does where a run is compared again."""
        from mlflow.exceptions import MlflowException

        client: MlflowClient = self._client
        with suppress(MlflowException):
            client.log_param(tracked, parameter, value)
