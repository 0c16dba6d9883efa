# One image for the replica (python -m dwcp_replica), the operator (python -m dwcp_operator) and
# the command line (dwcp). Any base with Python 3.11 or newer and its venv module will do.
ARG BASE_IMAGE=python:3.13-slim

# Wheels that were downloaded beforehand take this stage's place, for a build without a network:
#   --build-context wheels=DIRECTORY --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/wheels
FROM scratch AS wheels

FROM ${BASE_IMAGE} AS build
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# pip stays in the environment that builds; the one that is shipped has none.
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/dwcp
WORKDIR /source
COPY requirements.txt requirements-build.txt ./
RUN --mount=type=bind,from=wheels,target=/wheels \
    /build/bin/pip install --quiet --require-hashes --requirement requirements-build.txt && \
    /build/bin/pip --python /opt/dwcp/bin/python install --quiet --no-compile \
        --require-hashes --requirement requirements.txt
# Bytecode is made here, since the root file system is read-only later. Of `kubernetes`, which has
# thousands of modules, only those that are used.
RUN /opt/dwcp/bin/python -m compileall -q -j 2 -x '/(kubernetes|tests?)/' /opt/dwcp/lib && \
    /opt/dwcp/bin/python -c 'import kopf, kubernetes.aio.client, kubernetes.aio.config, kubernetes.aio.dynamic'
COPY . .
RUN --mount=type=bind,from=wheels,target=/wheels \
    /build/bin/pip wheel --quiet --no-build-isolation --no-deps --wheel-dir /dist . && \
    /build/bin/pip --python /opt/dwcp/bin/python install --quiet --no-compile --no-index --no-deps \
        /dist/*.whl && \
    /opt/dwcp/bin/python -m compileall -q /opt/dwcp/lib/python3*/site-packages/dwcp* && \
    /opt/dwcp/bin/python -c 'import dwcp_operator.__main__, dwcp_replica.__main__, dwcp.client'

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="dwcp" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="Replica, operator and command line of DWCP"
COPY --from=build /opt/dwcp /opt/dwcp
ENV PATH=/opt/dwcp/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONUTF8=1
USER 65532:65532
WORKDIR /
ENTRYPOINT []
CMD ["dwcp", "--help"]
