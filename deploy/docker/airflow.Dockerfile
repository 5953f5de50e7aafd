# Airflow 3 for the Compose profile `airflow`: its own environment, beside one of Shoplens that can train.
ARG BASE=python:3.11-slim-bookworm


FROM ${BASE}
ARG UID=10001
ARG AIRFLOW=3.3.2
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN groupadd --non-unique --gid "$UID" shoplens \
    && useradd --non-unique --uid "$UID" --gid "$UID" --home-dir /var/lib/airflow --no-create-home \
        --shell /usr/sbin/nologin shoplens \
    && install --directory --owner "$UID" --group "$UID" --mode 0750 /var/lib/airflow /var/lib/shoplens \
        /var/lib/shoplens/data /var/lib/shoplens/models /var/lib/shoplens/drop /var/lib/shoplens/logs
RUN python -m venv /srv/airflow && /srv/airflow/bin/pip install "apache-airflow==$AIRFLOW"
WORKDIR /srv/shoplens
RUN python -m venv .venv
COPY requirements/ requirements/
RUN .venv/bin/pip install --require-hashes --requirement requirements/scale.lock \
    && .venv/bin/pip install --require-hashes --requirement requirements/train.lock \
    && .venv/bin/pip install --require-hashes --requirement requirements/mlflow.lock \
    && .venv/bin/pip install --require-hashes --requirement requirements/otel.lock
# Only the recipes that train a network need it (--build-arg TORCH=1); some GB.
ARG TORCH=
RUN if [ -n "$TORCH" ]; then .venv/bin/pip install --requirement requirements/torch.txt; fi
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src/ src/
RUN .venv/bin/pip install --no-deps --no-build-isolation .
COPY deploy/airflow/dags/ dags/
ENV PATH=/srv/airflow/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AIRFLOW_HOME=/var/lib/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/srv/shoplens/dags \
    AIRFLOW__CORE__LOAD_EXAMPLES=false \
    SHOPLENS_HOME=/srv/shoplens \
    SHOPLENS_DATA_DIR=/var/lib/shoplens/data \
    SHOPLENS_MODELS_DIR=/var/lib/shoplens/models \
    SHOPLENS_LOG_DIR=/var/lib/shoplens/logs \
    SHOPLENS_LOG_FORMAT=json
USER ${UID}
ENTRYPOINT ["airflow"]
CMD ["standalone"]
