package spec

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckModel(t *testing.T) {
	for _, ok := range []string{"smollm2-135m-instruct", "qwen3-8b/model.gguf", "/srv/models/a b.gguf", "/srv/..models/x", "a..b", "modèle.gguf"} {
		if err := checkModel(ok, false); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "..", "../x", "a/../b", "/srv/models/../../etc/passwd", `..\x`, `a\..\b`, "a\x00b", "a\nb", "\xff", "file:///etc/passwd", "FILE:/etc/passwd",
		"https://host/model.gguf", "//host/share", `\\host\share`, `\\?\C:\x`, `C:\models\x`, "c:x", "C:/x", "a/..", "x\u202egguf", strings.Repeat("a", 5000)} {
		if err := checkModel(bad, false); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for _, bad := range []string{`C:\models\..\x`, `\\host\share`, `\\.\pipe\x`, `\\?\C:\x`, "a/../b"} {
		if err := checkModel(bad, true); err == nil {
			t.Errorf("%q is taken on Windows", bad)
		}
	}
	if err := checkModel(`C:\models\x.gguf`, true); err != nil {
		t.Error(err)
	}
}

func TestCheckUpload(t *testing.T) {
	if key, err := CheckUpload("f", "ref:uploads/0123abcd.jsonl"); err != nil || key != "uploads/0123abcd.jsonl" {
		t.Errorf("%q %v", key, err)
	}
	for _, bad := range []string{"", "uploads/a", "ref:", "ref:uploads/", "ref:uploads/../runs/x", "ref:uploads/a/b", "ref:runs/x", "ref:uploads/.x", "ref:uploads/a\n", "ref:/uploads/a", `ref:uploads/a\b`, "ref:uploads/a..b"} {
		if _, err := CheckUpload("f", bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestCheckRunID(t *testing.T) {
	for _, ok := range []string{"captain", "my captain", "a.b", "日本"} {
		if err := CheckRunID(ok); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a/b", "../x", `a\b`, "a\x00", "a\n", strings.Repeat("x", 300)} {
		if err := CheckRunID(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestCheckEndpoint(t *testing.T) {
	for _, ok := range []string{"https://api.example/v1", "https://api.example", "http://127.0.0.1:8080/v1/", "http://[::1]:1/v1"} {
		if _, err := CheckEndpoint(ok); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "api.example", "file:///etc/passwd", "FILE:///etc/passwd", "ftp://x/y", "https://u:p@x/v1", "https://u@x/v1", "https://x/v1?k=v", "https://x/v1?", "https://x/v1#f", "https://x/#",
		"https:///v1", "https:x/v1", "https://x/../y", "https://x/a//b", "https://x/a%2f..%2fb", "https://x/a\\b", "https://x/\x00", "https://x/./a", "gopher://x", "//x/v1", "https://:443/v1"} {
		if _, err := CheckEndpoint(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestCheckReferences(t *testing.T) {
	base, err := Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := base.CheckReferences(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(s *Spec){
		"model":                    func(s *Spec) { s.Model = "../../x" },
		"teacher_options.model":    func(s *Spec) { s.TeacherOptions.Model = "a/../../x" },
		"teacher_options.base_url": func(s *Spec) { s.TeacherOptions.BaseURL = "file:///x" },
		"teacher_options.file":     func(s *Spec) { s.TeacherOptions.File = "/etc/passwd" },
		"preferences.file":         func(s *Spec) { s.Preferences.File = "ref:../x" },
		"preferences.prompts":      func(s *Spec) { s.Preferences.Prompts = "ref:runs/x" },
		"introspection.file":       func(s *Spec) { s.Introspection.File = "x" },
		"model_sha256":             func(s *Spec) { s.ModelSHA256 = "../x" },
	} {
		s := base
		change(&s)
		if err := s.CheckReferences(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if e := PresetEndpoints(); len(e) != 1 || e[0] != (Endpoint{"https://api.deepseek.com", "DEEPSEEK_API_KEY"}) {
		t.Errorf("%v", e)
	}
}

// FuzzNames: what the rules take stays inside the folder it is joined to, and an address names one host.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"a/b", "../a", `a\..\b`, "https://x/v1", "https://x@y/v1", "ref:uploads/a.json", "a\x00", "C:x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if checkModel(s, false) == nil && !filepath.IsAbs(s) {
			if p := filepath.Join("/models", s); p != "/models" && !strings.HasPrefix(p, "/models/") {
				t.Errorf("%q leaves the folder: %s", s, p)
			}
		}
		if checkModel(s, false) == nil && filepath.IsAbs(s) && strings.Contains(filepath.ToSlash(s), "/../") {
			t.Errorf("%q has dots", s)
		}
		if key, err := CheckUpload("f", s); err == nil && (!strings.HasPrefix(key, "uploads/") || strings.Count(key, "/") != 1 || strings.Contains(key, "..")) {
			t.Errorf("%q gives the key %q", s, key)
		}
		if CheckRunID(s) == nil && strings.ContainsAny(s, "/\\\x00") {
			t.Errorf("%q is a run id", s)
		}
		if u, err := CheckEndpoint(s); err == nil && (u.User != nil || u.RawQuery != "" || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			t.Errorf("%q gives %v", s, u)
		}
	})
}
