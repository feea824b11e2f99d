# The server on CPUs. docs/docker.md says how to run it; `compose.yaml` does so.

FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY compile compile
COPY engines engines
COPY proto proto
COPY server server
COPY trainer trainer
COPY src src
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
RUN python -m venv /opt/mezzotint
RUN /opt/mezzotint/bin/python -m pip install --no-cache-dir --constraint constraints.txt "$(ls /wheels/mezzotint-*.whl)[serve]"

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /nonexistent mezzotint
RUN install --directory --owner 10001 /cache
COPY --from=build /opt/mezzotint /opt/mezzotint
# Nothing is written but to /cache, which keeps compiled engines for the next start; the root may be read-only.
ENV PATH=/opt/mezzotint/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/cache \
    MEZZOTINT_SERVE_HOST=0.0.0.0 \
    MEZZOTINT_SERVE_BUNDLES=/bundle
VOLUME ["/cache"]
USER 10001
EXPOSE 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m --retries=3 CMD ["mezzotint", "health", "localhost:8001"]
ENTRYPOINT ["mezzotint"]
CMD ["serve"]
