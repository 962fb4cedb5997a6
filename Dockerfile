# The sidecar: what backups and restores need, and nothing else. No database, no .env;
# PACKAGES=market adds what market data takes, PACKAGES=offsite what copies off the machine take.
# (.dockerignore lets in only what is copied here). Made and run by docker-compose.yml. The base by
# its digest: --build-arg BASE=python:3.12-slim@sha256:…; `./db outdated` prints the one of today.
ARG BASE=python:3.12-slim
FROM ${BASE}

ENV HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /app

# backup; market for the image that keeps the market data current; offsite for the one that sends
# copies.
ARG PACKAGES=backup
# A second set beside it: notify, for messages to a person.
ARG EXTRA=
COPY locks locks
RUN for set in $PACKAGES $EXTRA; do \
      pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --require-hashes -r "locks/$set.txt" || exit; \
    done

COPY sql sql
COPY scripts scripts
# The modes of a clone depend on its owner's umask; whichever user the container gets has to read
# this. (COPY --chmod is refused by the builder that Docker 20.10 has by default.) The root file
# system is read-only at run time, so Python could not keep what it compiles.
RUN chmod -R a+rX sql scripts && python -m compileall -q scripts

USER 1000:1000

ENTRYPOINT ["python"]
CMD ["scripts/run_scheduler.py"]
