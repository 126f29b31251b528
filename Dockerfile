# One image for all parts; compose.yaml chooses which by `python -m services.<name>`.
#
# Packages come from where pip is told to look: --build-arg PIP_INDEX_URL=…, or, without any index, PIP_NO_INDEX=1 and
# PIP_FIND_LINKS=<directory or page of wheels>. Whatever comes is checked against the hashes of requirements.txt.
ARG PYTHON=python:3.13.7-slim-bookworm

FROM ${PYTHON} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_FIND_LINKS
ARG PIP_NO_INDEX
WORKDIR /src
COPY requirements.txt ./
RUN python -m venv /opt/pullonce \
 && /opt/pullonce/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt
COPY pyproject.toml README.md ./
COPY schemas schemas
COPY pullonce pullonce
COPY services services
# What only installs is not needed to run.
RUN /opt/pullonce/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
 && rm -rf /opt/pullonce/lib/python3*/site-packages/pip /opt/pullonce/lib/python3*/site-packages/pip-*

FROM ${PYTHON}
# The numbers are part of the contract: volumes and credentials belong to them.
RUN groupadd --gid 10001 pullonce \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/pullonce --shell /usr/sbin/nologin pullonce \
 && install -d -o pullonce -g pullonce /var/lib/pullonce /var/lib/pullonce/stores /var/lib/pullonce/ledger
COPY --from=build /opt/pullonce /opt/pullonce
ENV PATH=/opt/pullonce/bin:$PATH PYTHONUNBUFFERED=1 PULLONCE_HOME=/var/lib/pullonce
VOLUME /var/lib/pullonce
USER pullonce
# A service drains on SIGTERM; it needs no init, since it reaps what it starts.
STOPSIGNAL SIGTERM
CMD ["pullonce", "up"]
