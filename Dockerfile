# One image for the telemetry service, the FL server, their commands and the clients of the demo.
# Debian's release and Python's are those that the tests run with.
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# What is locked and seldom changes comes first. Wheels only: nothing is compiled.
COPY requirements-build.lock requirements-image.lock ./
RUN python -m venv --without-pip /opt/fedserver
RUN python -m pip install --require-hashes --only-binary :all: -r requirements-build.lock
RUN python -m pip --python /opt/fedserver/bin/python install --require-hashes --only-binary :all: -r requirements-image.lock
# Tests of libraries, and the installer that Flower brings along for packing apps: a quarter of it all.
RUN find /opt/fedserver -type d -name tests -prune -exec rm -rf {} + && rm -f /opt/fedserver/bin/uv /opt/fedserver/bin/uvx
COPY pyproject.toml README.md LICENSE ./
COPY grafana/dashboards grafana/dashboards
COPY telemetry telemetry
COPY fedserver_hooks fedserver_hooks
COPY fedserver fedserver
RUN python -m pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /build/wheels .
RUN python -m pip --python /opt/fedserver/bin/python install --no-deps --no-index --find-links /build/wheels fedserver-telemetry

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="fedserver-telemetry" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 fedserver && useradd --uid 10001 --gid 10001 --home-dir /var/lib/fedserver --no-create-home --shell /usr/sbin/nologin fedserver && install -d -o 10001 -g 10001 -m 0750 /var/lib/fedserver
COPY --from=build /opt/fedserver /opt/fedserver
# Nothing is sent to the authors of Flower and codecarbon.
ENV PATH=/opt/fedserver/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    FLWR_TELEMETRY_ENABLED=0 \
    CODECARBON_TELEMETRY=disabled \
    CODECARBON_SAVE_TO_API=false
USER 10001:10001
WORKDIR /var/lib/fedserver
EXPOSE 5000 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["fedserver"]
CMD ["--help"]
