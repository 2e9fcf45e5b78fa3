#!/usr/bin/env bash
# The demo: from a constitution alone to a trained character on a real model. `make demo` calls it after the build.
set -euo pipefail
cd "$(dirname "$0")/.."
character=${CHARACTER:-captain} teacher=${TEACHER:-local} data=${DATA:-.character} id=${ID:-$character} model=${MODEL:-smollm2-135m-instruct}
out=demo/$id
start=$(date +%s)
bin/character --data "$data" run "$character" --preset demo --id "$id" --model "$model" --set "teacher=$teacher" || {
	code=$?
	# A run of that name that is finished already is no failure of the demo.
	bin/character --data "$data" status "$id" >/dev/null 2>&1 || exit "$code"
	bin/character --data "$data" status "$id" --json | grep -q '"state": "completed"' || exit "$code"
}
echo "The run took $(($(date +%s) - start)) s."
# An export is kept; the one before it, perhaps of another --data, gives way once the new one is complete.
rm -rf "$out.new"
bin/character --data "$data" export "$id" --out "$out.new" > /dev/null
rm -rf "$out"
mv "$out.new" "$out"
echo "Written to $out."
printf '%s\n' '{"prompt":"Hello!"}' '{"prompt":"Tell me about yourself."}' '{"prompt":"What should I do this weekend?"}' '{"prompt":"Why is the sky blue?"}' > "$out/.ask.jsonl"
echo
echo "The same questions, no constitution in the prompt, before and after:"
for m in base character; do
	echo "--- $m"
	bin/character --data "$data" generate --id "$id" --model "$m" --in "$out/.ask.jsonl" --temperature 0 --max-tokens 48
done
rm -f "$out/.ask.jsonl"
echo
echo "Report:  $out/report.html"
echo "Talk:    bin/character --data $data chat --id $id"
echo "The UI:  bin/character --data $data up"
