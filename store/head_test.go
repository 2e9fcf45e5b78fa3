package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/testenv/hostile"
)

func FuzzParseHead(f *testing.F) {
	f.Add([]byte(`{"epoch":1,"owner":"a","step":2,"files":{"x":{"key":"k","sha256":"00","size":1}},"note":{"a":1},"nonce":"n","previous":{"epoch":1,"nonce":"m"}}`))
	f.Add([]byte(`{"epoch":1,"nonce":"n","note":null}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"epoch":-1,"nonce":"n"}`))
	f.Add([]byte(``))
	f.Add([]byte(`[1,2`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var h Head
		var err error
		hostile.Bounds{PerByte: 200}.Hold(t, len(data), func() { h, err = parseHead(data) })
		if err != nil {
			return
		}
		if h.Epoch < 1 || h.Nonce == "" {
			t.Errorf("accepted %+v", h)
		}
		raw, err := json.Marshal(h.clone())
		if err != nil {
			t.Fatalf("a parsed head can not be written again: %v", err)
		}
		again, err := parseHead(raw)
		if err != nil {
			t.Fatalf("a head that was written can not be parsed: %v", err)
		}
		if twice, err := json.Marshal(again); err != nil || !bytes.Equal(raw, twice) {
			t.Errorf("written as %s, then as %s (%v)", raw, twice, err)
		}
	})
}

func FuzzCheckKey(f *testing.F) {
	for _, k := range []string{"a/b", "", "../x", "a//b", "a\x00", "\xff/", "runs/x/HEAD.json"} {
		f.Add(k)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if checkKey(key) == nil && (key == "" || key[0] == '/' || key[len(key)-1] == '/') {
			t.Errorf("accepted %q", key)
		}
	})
}

func FuzzParseCommit(f *testing.F) {
	f.Add([]byte(`{"epoch":1,"owner":"a","step":2,"files":{"x":{"key":"k","sha256":"00","size":1}},"nonce":""}`))
	f.Add([]byte(`{"files":{"":{}}}`))
	f.Add([]byte(`{"files":{"x":null}}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseCommit(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v is not called damage", err)
			}
			return
		}
		for name, r := range h.Files {
			if name == "" || checkKey(r.Key) != nil {
				t.Errorf("accepted %q: %+v", name, r)
			}
		}
	})
}

func FuzzParseCommitKey(f *testing.F) {
	for _, k := range []string{"st/data/00000001/e2-abc/run.json", "st/data/1/e-/x", "st/data//e1-a/x", "st/data/9/e0-a/x", "st/dat", ""} {
		f.Add(k)
	}
	f.Fuzz(func(t *testing.T, key string) {
		step, epoch, name, ok := ParseCommitKey("st", key)
		if ok && (step < 0 || epoch < 1 || name == "" || !strings.HasPrefix(key, "st/data/")) {
			t.Errorf("%q: %d %d %q", key, step, epoch, name)
		}
	})
}
