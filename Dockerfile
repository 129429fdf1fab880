# The images of selfevo, one target each (docs/container-images.md):
#
#   operator      turns runs into Jobs: no torch, no compiler
#   ui            pages on the runs, in a browser
#   trainer       runs in the Jobs: CUDA comes with torch's wheels, vLLM, a C compiler for Triton
#   trainer-cpu   the same without vLLM, for tests and tiny models
#
#   docker buildx build --target operator --build-arg SLIM_DIGEST=sha256:... .
#   docker buildx build --target trainer --build-arg SLIM_DIGEST=sha256:... --build-arg FULL_DIGEST=sha256:... .
#
# Base images are named by digest, and you name it: what a tag means changes by the week. Nothing has the digest that
# stands here, so a build without it ends at once. All commands live in tools/image-environment.
ARG SLIM_IMAGE=python:3.11-slim-bookworm
ARG SLIM_DIGEST=sha256:0000000000000000000000000000000000000000000000000000000000000000
ARG FULL_IMAGE=python:3.11-bookworm
ARG FULL_DIGEST=sha256:0000000000000000000000000000000000000000000000000000000000000000

FROM ${SLIM_IMAGE}@${SLIM_DIGEST} AS slim

# With a C compiler, which Triton calls when a kernel is first used. It has one; so none is installed, from archives that
# change, into a layer that then cannot be made again.
FROM ${FULL_IMAGE}@${FULL_DIGEST} AS full

# What builds: it is in no image.
FROM slim AS tools
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /tools \
    && /tools/bin/python -m pip install --no-cache-dir --disable-pip-version-check --quiet \
        --constraint constraints.txt uv cyclonedx-bom
COPY constraints-vllm.txt pyproject.toml ./
COPY tools/image-environment tools/
ENV UV=/tools/bin/uv UV_NO_CACHE=1 CYCLONEDX=/tools/bin/cyclonedx-py

FROM tools AS own
COPY README.md LICENSE ./
COPY contract/ contract/
COPY operator/ operator/
COPY trainer/ trainer/
COPY cli/ cli/
RUN tools/image-environment own /opt/selfevo

FROM tools AS operator-environment
RUN tools/image-environment operator /opt/selfevo

FROM tools AS ui-environment
RUN tools/image-environment ui /opt/selfevo

FROM tools AS trainer-environment
RUN tools/image-environment trainer /opt/selfevo

FROM tools AS trainer-cpu-environment
# PyTorch's own index has a build without CUDA; empty: the registry's build, which runs on a CPU too and is 5 GB larger.
ARG TORCH_BACKEND=cpu
RUN tools/image-environment trainer-cpu /opt/selfevo

# ------------------------------------------------------------------------------------------------------------- images
# The large layer first and our code over it: a new version of selfevo is a push of 3 MB. Both are owned by root and
# read only to the user that runs; nothing writes into the image, so it works with a read-only root file system.

FROM slim AS operator
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="selfevo operator" \
      org.opencontainers.image.description="Turns SelfEvolutionRuns into Jobs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=operator-environment /opt/selfevo /opt/selfevo
COPY --from=own /opt/selfevo /opt/selfevo
ENV PATH=/opt/selfevo/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
EXPOSE 8080
USER 10001:10001
WORKDIR /
ENTRYPOINT ["python", "-m", "selfevo_operator"]

FROM slim AS ui
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="selfevo ui" \
      org.opencontainers.image.description="Shows SelfEvolutionRuns in a browser" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=ui-environment /opt/selfevo /opt/selfevo
COPY --from=own /opt/selfevo /opt/selfevo
ENV PATH=/opt/selfevo/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /
ENTRYPOINT ["python", "-m", "selfevo.main"]

FROM slim AS trainer-cpu
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="selfevo trainer (CPU)" \
      org.opencontainers.image.description="Runs one phase of a SelfEvolutionRun, without a GPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=trainer-cpu-environment /opt/selfevo /opt/selfevo
COPY --from=own /opt/selfevo /opt/selfevo
ENV PATH=/opt/selfevo/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp USER=selfevo LOGNAME=selfevo \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /
ENTRYPOINT ["python", "-m", "selfevo_trainer"]

FROM full AS trainer
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="selfevo trainer" \
      org.opencontainers.image.description="Runs one phase of a SelfEvolutionRun on NVIDIA GPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=trainer-environment /opt/selfevo /opt/selfevo
COPY --from=own /opt/selfevo /opt/selfevo
# Not NVIDIA_VISIBLE_DEVICES: the device plugin sets it for pods that were given GPUs, and an image that says `all` takes
# every GPU of a node whose default runtime is NVIDIA's without asking anybody.
ENV PATH=/opt/selfevo/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp USER=selfevo LOGNAME=selfevo \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /
ENTRYPOINT ["python", "-m", "selfevo_trainer"]
