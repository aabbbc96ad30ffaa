#!/bin/sh
# The command line of the installed agent, on the service's own files and sockets.
: "${CABINSENSE_DATA=/var/lib/cabinsense}" "${RUNTIME_DIRECTORY=/run/cabinsense}"
export CABINSENSE_DATA RUNTIME_DIRECTORY
exec /opt/cabinsense/venv/bin/cabinsense "$@"
