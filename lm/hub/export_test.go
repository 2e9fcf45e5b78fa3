package hub

import "time"

// PullEntry is Pull for an entry that is not in the registry.
var PullEntry = pull

// ConfigTemplate is the parser of tokenizer_config.json.
var ConfigTemplate = configTemplate

// Quick shortens the pauses between attempts for a test.
func Quick(t interface{ Cleanup(func()) }) {
	old := firstWait
	firstWait = time.Millisecond
	t.Cleanup(func() { firstWait = old })
}

// Register adds an entry for a test.
func Register(t interface{ Cleanup(func()) }, e Entry) {
	old := registry
	registry = append(registry[:len(registry):len(registry)], e)
	t.Cleanup(func() { registry = old })
}
