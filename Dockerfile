# One image for all parts; compose.yaml chooses which by `python -m services.<name>`.
FROM python:3.13.7-slim-bookworm AS build
WORKDIR /src
COPY requirements.txt ./
RUN python -m venv /opt/pullonce \
 && /opt/pullonce/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt
COPY pyproject.toml README.md ./
COPY schemas schemas
COPY pullonce pullonce
COPY services services
RUN /opt/pullonce/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation .

FROM python:3.13.7-slim-bookworm
COPY --from=build /opt/pullonce /opt/pullonce
ENV PATH=/opt/pullonce/bin:$PATH PYTHONUNBUFFERED=1 PULLONCE_HOME=/var/lib/pullonce
VOLUME /var/lib/pullonce
# A service drains on SIGTERM; it needs no init, since it reaps what it starts.
STOPSIGNAL SIGTERM
CMD ["pullonce", "up"]
