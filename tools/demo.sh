#!/usr/bin/env bash
# A whole sync on this machine: a real Kafka, a real Neo4j, a simulated AWS, the workers on a local Ray.
set -euo pipefail
cd "$(dirname "$0")/.."
cartoray=.venv/bin/cartoray
accounts=${ACCOUNTS:-5}

say() { printf '\n\033[1m$ cartoray %s\033[0m\n' "$*"; "$cartoray" "$@"; }

say up --simulate-aws "$accounts" --latency-ms "${LATENCY_MS:-100}"
say sync --provider aws --organization --scope native --serve
say graph
cat <<'END'

The stack is still up. What next:
  .venv/bin/cartoray status          the run again, from Kafka alone
  .venv/bin/cartoray sync --organization --serve    all modules of AWS, also those that run Cartography's own code
  .venv/bin/cartoray config          every setting, and where its value comes from
  .venv/bin/cartoray down --wipe     stop everything and leave nothing behind
END
