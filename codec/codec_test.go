package codec_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/opencharacter/opencharacter/codec"
)

// line is a key line whose 32 bytes are all b.
func line(id string, b byte) string {
	return id + " " + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)) + "\n"
}

func keys(t testing.TB, text string) *codec.Keys {
	t.Helper()
	k, err := codec.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

const secret = "the captain never says goodbye"

func payload() *commonpb.Payload {
	return &commonpb.Payload{Metadata: map[string][]byte{"encoding": []byte("json/plain")}, Data: []byte(`"` + secret + `"`)}
}

func TestRoundTripAndRotation(t *testing.T) {
	old := keys(t, line("k1", 1))
	both := keys(t, "# new first\n\n"+line("k2", 2)+line("k1", 1))
	sealed, err := old.Encode([]*commonpb.Payload{payload(), payload()})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range sealed {
		b, _ := proto.Marshal(p)
		if bytes.Contains(b, []byte("captain")) || string(p.Metadata["encryption-key-id"]) != "k1" {
			t.Errorf("sealed: %q", b)
		}
	}
	if bytes.Equal(sealed[0].Data, sealed[1].Data) {
		t.Error("equal payloads are equal when encrypted: the nonce repeats")
	}
	plain, err := both.Decode(sealed)
	if err != nil || !proto.Equal(plain[0], payload()) || !proto.Equal(plain[1], payload()) {
		t.Errorf("after rotation: %v %v", plain, err)
	}
	sealed, err = both.Encode([]*commonpb.Payload{payload()})
	if err != nil || string(sealed[0].Metadata["encryption-key-id"]) != "k2" {
		t.Errorf("the first key does not encrypt: %v %v", sealed, err)
	}
	if _, err := old.Decode(sealed); !errors.Is(err, codec.ErrKey) || !strings.Contains(err.Error(), "add the line of key k2") {
		t.Errorf("a key that is missing: %v", err)
	}
	// What was not encrypted passes.
	if got, err := both.Decode([]*commonpb.Payload{payload()}); err != nil || !proto.Equal(got[0], payload()) {
		t.Errorf("plain: %v %v", got, err)
	}
}

func TestWrongKeyAndDamage(t *testing.T) {
	sealed, err := keys(t, line("k1", 1)).Encode([]*commonpb.Payload{payload()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys(t, line("k1", 9)).Decode(sealed); !errors.Is(err, codec.ErrKey) || !strings.Contains(err.Error(), "another one") {
		t.Errorf("another key of that name: %v", err)
	}
	var none *codec.Keys
	if _, err := none.Decode(sealed); !errors.Is(err, codec.ErrKey) || !strings.Contains(err.Error(), "--codec-key-file") {
		t.Errorf("no key: %v", err)
	}
	if got, err := none.Encode([]*commonpb.Payload{payload()}); err != nil || !proto.Equal(got[0], payload()) {
		t.Errorf("no key changes payloads: %v %v", got, err)
	}
	k := keys(t, line("k1", 1)+line("k2", 1))
	for name, damage := range map[string]func(p *commonpb.Payload){
		"bit":     func(p *commonpb.Payload) { p.Data[len(p.Data)-1] ^= 1 },
		"short":   func(p *commonpb.Payload) { p.Data = p.Data[:5] },
		"renamed": func(p *commonpb.Payload) { p.Metadata["encryption-key-id"] = []byte("k2") }, // the same 32 bytes
		"cipher":  func(p *commonpb.Payload) { p.Metadata["encryption-cipher"] = []byte("ROT13") },
		"no id":   func(p *commonpb.Payload) { delete(p.Metadata, "encryption-key-id") },
	} {
		p := proto.Clone(sealed[0]).(*commonpb.Payload)
		damage(p)
		if got, err := k.Decode([]*commonpb.Payload{p}); err == nil {
			t.Errorf("%s: opens as %v", name, got)
		}
	}
}

func TestConverters(t *testing.T) {
	k := keys(t, line("k1", 1))
	p, err := k.DataConverter().ToPayload(secret)
	if err != nil || bytes.Contains(p.Data, []byte("captain")) {
		t.Fatalf("%v %v", p, err)
	}
	var got string
	if err := k.DataConverter().FromPayload(p, &got); err != nil || got != secret {
		t.Errorf("%q %v", got, err)
	}
	f := k.FailureConverter().ErrorToFailure(temporal.NewApplicationError(secret, "Some"))
	if strings.Contains(f.String(), "captain") {
		t.Errorf("the failure is readable: %v", f)
	}
	if err := k.FailureConverter().FailureToError(f); !strings.Contains(err.Error(), secret) {
		t.Errorf("decoded failure: %v", err)
	}
	var none *codec.Keys
	if f := none.FailureConverter().ErrorToFailure(errors.New(secret)); f.Message != secret {
		t.Errorf("without keys: %v", f)
	}
	p, err = none.DataConverter().ToPayload(secret)
	if want, _ := converter.GetDefaultDataConverter().ToPayload(secret); err != nil || !proto.Equal(p, want) {
		t.Errorf("without keys: %v %v", p, err)
	}
}

func TestKeyFileRefusals(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "no key"},
		{"# only words\n", "no key"},
		{"k1\n", "line 1"},
		{"k1 secretsecretsecret\n", "not 32 bytes"},
		{"k1 " + base64.StdEncoding.EncodeToString([]byte("short")), "not 32 bytes"},
		{line("k1", 1) + line("k1", 2), "twice"},
		{"../k " + strings.Fields(line("x", 1))[1], "line 1"},
		{strings.Repeat(" ", 70000), "more than"},
	} {
		_, err := codec.Parse([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secretsecret") {
			t.Errorf("Parse(%.30q) = %v, want %q", c.text, err, c.want)
		}
	}
}

func TestNewKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	for _, id := range []string{"k1", "k2"} {
		if err := codec.NewKey(path, id); err != nil {
			t.Fatal(err)
		}
	}
	k, err := codec.Read(path)
	if err != nil || strings.Join(k.IDs(), " ") != "k2 k1" {
		t.Errorf("%v %v", k.IDs(), err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", st.Mode(), err)
	}
	if err := codec.NewKey(path, "k1"); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a name twice: %v", err)
	}
	if _, err := codec.Read(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "key file") {
		t.Errorf("no file: %v", err)
	}
}

// TestHandler: the page of the named origin gets payloads decrypted, all others nothing.
func TestHandler(t *testing.T) {
	k := keys(t, line("k1", 1))
	const ui = "http://127.0.0.1:8233"
	h, err := codec.Handler(k, []string{ui})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	defer server.Close()
	sealed, err := k.Encode([]*commonpb.Payload{payload()})
	if err != nil {
		t.Fatal(err)
	}
	body, err := protojson.Marshal(&commonpb.Payloads{Payloads: sealed})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, method, origin, kind, host string
		status                           int
		cors, plain                      bool
	}{
		{"the UI", "POST", ui, "application/json", "", 200, true, true},
		{"before it asks", "OPTIONS", ui, "", "", 204, true, false},
		{"no browser", "POST", "", "application/json", "", 200, false, true},
		{"another page", "POST", "https://evil.example", "application/json", "", 403, false, false},
		{"another page asks", "OPTIONS", "https://evil.example", "", "", 403, false, false},
		{"null", "POST", "null", "application/json", "", 403, false, false},
		{"another port", "POST", "http://127.0.0.1:9999", "application/json", "", 403, false, false},
		{"a form", "POST", "", "text/plain", "", 415, false, false},
		{"rebinding", "POST", "", "application/json", "evil.example", 403, false, false},
	} {
		req, _ := http.NewRequest(c.method, server.URL+"/decode", bytes.NewReader(body))
		req.Host = c.host
		if c.origin != "" {
			req.Header.Set("Origin", c.origin)
		}
		req.Header.Set("Content-Type", c.kind)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		var back commonpb.Payloads
		plain := protojson.Unmarshal(got, &back) == nil && len(back.Payloads) == 1 && proto.Equal(back.Payloads[0], payload())
		if res.StatusCode != c.status || (res.Header.Get("Access-Control-Allow-Origin") == ui) != c.cors || plain != c.plain {
			t.Errorf("%s: %s, CORS %q: %.100s", c.name, res.Status, res.Header.Get("Access-Control-Allow-Origin"), got)
		}
	}
	for _, o := range []string{"*", "http://127.0.0.1:8233/", "127.0.0.1:8233", "null", "file://"} {
		if _, err := codec.Handler(k, []string{o}); err == nil {
			t.Errorf("origin %q is taken", o)
		}
	}
	if _, err := codec.Handler(nil, nil); err == nil {
		t.Error("an endpoint without keys")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(line("k1", 1) + "# x\n" + line("k2", 2)))
	f.Add([]byte("k1 AAAA\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := codec.Parse(b)
		if err != nil {
			return
		}
		sealed, err := k.Encode([]*commonpb.Payload{payload()})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Decode(sealed); err != nil || !proto.Equal(got[0], payload()) {
			t.Errorf("%v %v", got, err)
		}
	})
}

// FuzzDecode: whatever a history holds, decoding gives an error or a payload, and nothing opens but what was sealed with the key (each
// process of the fuzzer seals the seed anew, under a nonce of its own).
func FuzzDecode(f *testing.F) {
	k := keys(f, line("k1", 1))
	sealed, err := k.Encode([]*commonpb.Payload{payload()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("binary/encrypted", "AES-256-GCM", "k1", sealed[0].Data)
	f.Add("json/plain", "", "", []byte("{}"))
	f.Fuzz(func(t *testing.T, encoding, cipher, id string, data []byte) {
		p := &commonpb.Payload{Metadata: map[string][]byte{"encoding": []byte(encoding), "encryption-cipher": []byte(cipher), "encryption-key-id": []byte(id)}, Data: data}
		got, err := k.Decode([]*commonpb.Payload{p})
		if err == nil && encoding == codec.Encoding && !proto.Equal(got[0], payload()) {
			t.Errorf("%q opens as %v", data, got)
		}
	})
}
