# One run: docker run --rm --read-only --env-file ecoflow-push.env IMAGE
# The program is born every minute and a read-only container cannot keep byte code,
# so everything it imports is compiled here, the standard library too: the base image
# comes without. Unchecked: nothing changes afterwards, and file times may.
FROM python:3.13-slim AS builder
WORKDIR /app
RUN python -m venv --without-pip .venv
COPY requirements.txt .
RUN pip --python .venv/bin/python install --require-hashes --no-cache-dir --no-compile \
        --disable-pip-version-check --root-user-action ignore -r requirements.txt \
    && rm requirements.txt
COPY push.py LICENSE ./
COPY ecoflow_push ecoflow_push
RUN python -m compileall -q --invalidation-mode unchecked-hash .

FROM python:3.13-slim
# The state folder is open to any --user; what the program makes in it is not.
RUN python -m compileall -q --invalidation-mode unchecked-hash \
        -x '/(ensurepip|idlelib|site-packages|test|tkinter|turtledemo)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && install -d -o 10001 -g 10001 -m 1777 /var/lib/ecoflow-push
COPY --from=builder /app /app
ENV PYTHONUNBUFFERED=1 \
    STATE_DIR=/var/lib/ecoflow-push
VOLUME /var/lib/ecoflow-push
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
# Where /tmp is read-only too, Python puts temporary files into its working directory.
WORKDIR /var/lib/ecoflow-push
ENTRYPOINT ["/app/.venv/bin/python", "/app/push.py"]
