#!/usr/bin/env bash
# Installs Debian's Chromium for the browser tests (testenv/browser), where a package manager and the right to use it are there.
#
#   bench/setup_browser.sh        says what it found or installed; status 1 where there is no browser afterwards
#
# A browser that is here already, or named by CHROMIUM, is left as it is. Tests find it on the PATH.
set -uo pipefail
for name in "${CHROMIUM:-chromium}" chromium-browser google-chrome; do
	if command -v "$name" >/dev/null; then
		"$name" --version
		exit 0
	fi
done
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
fi
command -v chromium >/dev/null || { echo "setup_browser: no Chromium here; install it (Debian, as root: apt-get install chromium) or name one with CHROMIUM=..." >&2; exit 1; }
chromium --version
