# An MLflow 3 server for the Compose profile `mlflow`.
ARG BASE=python:3.11-slim-bookworm


FROM ${BASE}
ARG UID=10001
ARG MLFLOW=3.17.2
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN useradd --non-unique --uid "$UID" --home-dir /var/lib/mlflow --no-create-home --shell /usr/sbin/nologin mlflow \
    && install --directory --owner "$UID" --mode 0750 /var/lib/mlflow
RUN python -m venv /srv/mlflow && /srv/mlflow/bin/pip install "mlflow==$MLFLOW"
ENV PATH=/srv/mlflow/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
WORKDIR /var/lib/mlflow
USER ${UID}
ENTRYPOINT ["mlflow"]
CMD ["server"]
