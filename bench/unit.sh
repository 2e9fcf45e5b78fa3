#!/usr/bin/env bash
# The quick tests: none needs a server or a model, and nothing of the embedded servers (Temporal, its UI, S3) is compiled. Prints how long the building took.
#
# Tests that start an S3 server carry the build constraint !noserver; make test runs them too, and vets.
set -euo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0
packages=$(go list ./... | grep -vE '/testenv/|/cmd/|/bench/|/examples$')
flags=(-tags noserver -vet=off -ldflags='-s -w')
# No debugger's tables, one thread a compiler, and no inlining but in the engine, whose tests would crawl: a quarter less to compile. Panics keep their lines.
# "all" would compile the standard library anew.
for pattern in github.com go.temporal.io golang.org/x google.golang.org gonum.org codeberg.org go.yaml.in; do
  flags+=("-gcflags=$pattern/...=-l -dwarf=false -c=1")
done
module=$(go list -m)
flags+=("-gcflags=$module/lm/...=-dwarf=false -c=1" "-gcflags=$module/tensor/...=-dwarf=false -c=1")
start=$SECONDS
# A compiler that seldom collects garbage is a tenth quicker; the limit keeps two of them inside a laptop.
# shellcheck disable=SC2086
GOGC=off GOMEMLIMIT=1500MiB go test "${flags[@]}" -run '^$' $packages >/dev/null
echo "built in $((SECONDS - start)) s"
# shellcheck disable=SC2086
go test "${flags[@]}" $packages
