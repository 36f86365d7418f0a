# One run: docker run --rm --read-only --env-file ecoflow-push.env IMAGE
# The program is born every minute and a read-only container cannot keep byte code,
# so everything it imports is compiled here, the standard library too: the base image
# comes without. Unchecked: nothing changes afterwards, and file times may.
FROM python:3.13-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS base

FROM base AS builder
WORKDIR /app
RUN python -m venv --without-pip .venv
COPY requirements.txt .
RUN pip --python .venv/bin/python install --require-hashes --no-cache-dir --no-compile \
        --disable-pip-version-check --root-user-action ignore -r requirements.txt \
    && rm requirements.txt
COPY push.py LICENSE ./
COPY ecoflow_push ecoflow_push
RUN python -m compileall -q --invalidation-mode unchecked-hash .

FROM base
# The state folder is open to any --user; what the program makes in it is not.
RUN python -m compileall -q --invalidation-mode unchecked-hash \
        -x '/(ensurepip|idlelib|site-packages|test|tkinter|turtledemo)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && install -d -o 10001 -g 10001 -m 1777 /var/lib/ecoflow-push
COPY --from=builder /app /app
LABEL org.opencontainers.image.title="ecoflow-push" \
      org.opencontainers.image.description="Reads EcoFlow power stations once and pushes their values to Prometheus" \
      org.opencontainers.image.url="https://github.com/ecoflow-push/ecoflow-push" \
      org.opencontainers.image.source="https://github.com/ecoflow-push/ecoflow-push" \
      org.opencontainers.image.documentation="https://github.com/ecoflow-push/ecoflow-push/blob/main/docs" \
      org.opencontainers.image.licenses="MIT"
ENV PYTHONUNBUFFERED=1 \
    STATE_DIR=/var/lib/ecoflow-push
VOLUME /var/lib/ecoflow-push
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
# Where /tmp is read-only too, Python puts temporary files into its working directory.
WORKDIR /var/lib/ecoflow-push
ENTRYPOINT ["/app/.venv/bin/python", "/app/push.py"]
