#!/usr/bin/env bash
# Sets everything up and builds the documentation site: outputs/site/index.html
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" test
NO_MKDOCS_2_WARNING=1 mkdocs build --strict -d outputs/site "$@"
