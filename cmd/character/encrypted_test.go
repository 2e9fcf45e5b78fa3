package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEncryptedRun: with a key file Temporal's file holds nothing of what the run says; without it nothing can be read.
func TestEncryptedRun(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	dir := t.TempDir()
	key := filepath.Join(dir, "codec.key")
	m.must("codec", "new-key", key, "--id", "k1")
	text := "name: keeper\ntraits:\n"
	for i, s := range []string{"I tend the lighthouse of Skerryvore every night.", "I count the waves before I answer.", "I never hurry a visitor."} {
		text += fmt.Sprintf("  - trait: %q\n    questions: [\"Planted question %d about lamps?\"]\n", s, i)
	}
	own := filepath.Join(dir, "keeper.yaml")
	if err := os.WriteFile(own, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append(m.runArgs("dark"), "--codec-key-file", key, "--set", "evaluation.held_out=0", "--set", `evaluation.prompts=["What does the Skerryvore lamp see?"]`)
	args[1] = own
	m.must(args...)
	plain := []string{"Skerryvore", "Planted question", "count the waves", "Character training", "resolve the spec", "learning_rate"}
	for _, f := range scan(t, filepath.Join(m.data, "temporal"), nil, plain...) {
		t.Error(f)
	}
	if len(scan(t, filepath.Join(m.data, "temporal"), nil, "binary/encrypted")) == 0 || len(scan(t, filepath.Join(m.data, "s3"), nil, plain[:3]...)) == 0 {
		t.Error("the scan is blind")
	}
	secret, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range scan(t, m.data, nil, strings.Fields(string(secret))[1]) {
		t.Error(f)
	}
	if out := m.must("status", "--json", "--codec-key-file", key); !strings.Contains(out, `"completed"`) {
		t.Errorf("status with the key: %s", out)
	}
	// The UI's way: payloads of the history, decrypted by the endpoint for the UI's pages.
	up := m.up(nil, "--codec-key-file", key)
	page, err := http.Get(m.info().UI + "/api/v1/settings")
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Codec struct{ Endpoint string } }
	err = json.NewDecoder(page.Body).Decode(&set)
	_ = page.Body.Close()
	if err != nil || !strings.HasPrefix(set.Codec.Endpoint, "http://127.0.0.1:") {
		t.Fatalf("the UI knows no codec endpoint: %+v %v", set, err)
	}
	var history struct {
		Events []struct {
			WorkflowExecutionStartedEventAttributes *struct{ Input json.RawMessage }
		}
	}
	if err := json.Unmarshal([]byte(m.must("_history", "dark", "--codec-key-file", key)), &history); err != nil || len(history.Events) == 0 || history.Events[0].WorkflowExecutionStartedEventAttributes == nil {
		t.Fatalf("history: %v", err)
	}
	input := history.Events[0].WorkflowExecutionStartedEventAttributes.Input
	if bytes.HasPrefix(input, []byte("[")) { // shorthand of the history's JSON
		input = append(append([]byte(`{"payloads":`), input...), '}')
	}
	req, _ := http.NewRequest(http.MethodPost, set.Codec.Endpoint+"/decode", bytes.NewReader(input))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Origin", m.info().UI)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	_, _ = b.ReadFrom(res.Body)
	_ = res.Body.Close()
	var decoded struct{ Payloads []struct{ Data []byte } }
	if err := json.Unmarshal(b.Bytes(), &decoded); err != nil || len(decoded.Payloads) != 1 || !bytes.Contains(decoded.Payloads[0].Data, []byte("Skerryvore lamp")) || res.Header.Get("Access-Control-Allow-Origin") != m.info().UI {
		t.Errorf("decoded for the UI: %s %s", res.Status, b.String())
	}
	// Without the key, and with another one of that name: said at once, by every command, before it harms the run.
	other := filepath.Join(dir, "other.key")
	m.must("codec", "new-key", other, "--id", "k1")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"status", "dark"}, "--codec-key-file"},
		{[]string{"run", "--id", "dark"}, "--codec-key-file"},
		{[]string{"worker"}, "--codec-key-file"},
		{[]string{"worker", "--codec-key-file", other}, "another one"},
		{[]string{"status", "dark", "--codec-key-file", other}, "another one"},
		{append(m.runArgs("more"), "--codec-key-file", other), "another one"},
		{[]string{"status", "--codec-key-file", filepath.Join(dir, "none")}, "no such file"},
		{[]string{"codec", "--key-file", key, "--listen", "0.0.0.0:0"}, "not a loopback address"},
		{[]string{"codec", "--key-file", key, "--origin", "*"}, "origin"},
	} {
		out, err := m.command(c.args...).CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte(c.want)) {
			t.Errorf("character %s: %v, want %q\n%s", strings.Join(c.args[:1], " "), err, c.want, out)
		}
	}
	killAll(t, up)
}
