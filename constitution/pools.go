package constitution

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// ReflectionPrompt is a text with a stable id: the kind and the first eight
// hexadecimal digits of the text's SHA-256. The id changes only with the text.
type ReflectionPrompt struct {
	ID, Text string
}

// GeneralPrompts returns the built-in pool of everyday prompts, in a fixed
// order. None of them is a question of a recorded answer.
func GeneralPrompts() []string { return poolLines("general") }

// ReflectionPrompts returns prompts that make a character write about itself:
// the ten of the method first, then more.
func ReflectionPrompts() []ReflectionPrompt { return withIDs("reflection") }

// InteractionSeeds returns openers for a talk between two copies of a character.
func InteractionSeeds() []ReflectionPrompt { return withIDs("interaction") }

func withIDs(pool string) []ReflectionPrompt {
	var out []ReflectionPrompt
	for _, text := range poolLines(pool) {
		sum := sha256.Sum256([]byte(text))
		out = append(out, ReflectionPrompt{ID: pool + "-" + hex.EncodeToString(sum[:4]), Text: text})
	}
	return out
}

// poolLines reads an embedded pool: one text a line, "#" begins a comment.
func poolLines(pool string) []string {
	data, err := library.ReadFile("library/prompts/" + pool + ".txt")
	if err != nil {
		panic(err) // embedded at build time
	}
	var out []string
	for line := range bytes.Lines(data) {
		if s := strings.TrimSpace(string(line)); s != "" && !strings.HasPrefix(s, "#") {
			out = append(out, s)
		}
	}
	return out
}
