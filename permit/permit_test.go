package permit

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func rules(t testing.TB, o Options) *Rules {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func put(t testing.TB, path string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("GGUF"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func link(t testing.TB, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

// folder is a temporary folder without links in its own path.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestModel(t *testing.T) {
	root, other := folder(t), folder(t)
	in := put(t, filepath.Join(root, "good", "model.gguf"))
	put(t, filepath.Join(root, "hf", "snapshots", "1", "config.json"))
	put(t, filepath.Join(root, "hf", "blobs", "weights"))
	link(t, "../../blobs/weights", filepath.Join(root, "hf", "snapshots", "1", "model.safetensors"))
	out := put(t, filepath.Join(other, "secret"))
	link(t, out, filepath.Join(root, "leak.gguf"))
	link(t, other, filepath.Join(root, "leak"))
	put(t, filepath.Join(root, "mixed", "config.json"))
	link(t, out, filepath.Join(root, "mixed", "tokenizer.json"))
	link(t, root, filepath.Join(other, "byname"))
	beside := put(t, root+"-beside/model.gguf")
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(beside)) })
	r := rules(t, Options{Paths: []string{root, filepath.Join(root, "missing")}})
	for name, want := range map[string]string{
		in:                                    in,
		"good/model.gguf":                     in,
		"good":                                filepath.Join(root, "good"),
		filepath.Join(root, "hf/snapshots/1"): filepath.Join(root, "hf/snapshots/1"),
		root + "//good/./model.gguf":          in,
	} {
		if got, err := r.Model(name); err != nil || got != want {
			t.Errorf("Model(%q) = %q, %v, want %q", name, got, err, want)
		}
	}
	for _, name := range []string{
		out, beside, "/etc/passwd", "/", root + "/../" + filepath.Base(other) + "/secret", "../secret", "good/../../x",
		filepath.Join(root, "leak.gguf"), "leak.gguf", "leak/secret", filepath.Join(root, "leak", "secret"), "mixed", filepath.Join(root, "mixed"),
		"none", filepath.Join(root, "none"), "x\x00", `C:\x`, `\\host\x`, "file:///etc/passwd", "", "/proc/self/environ", "/dev/zero",
	} {
		if got, err := r.Model(name); err == nil {
			t.Errorf("Model(%q) = %q: allowed", name, got)
		}
	}
	// Whether a file exists that is not allowed is not told.
	_, there := r.Model(out)
	_, not := r.Model(filepath.Join(other, "nothing"))
	if !errors.Is(there, ErrRefused) || !errors.Is(not, ErrRefused) || !strings.Contains(there.Error(), "--allow-path") {
		t.Errorf("%v\n%v", there, not)
	}
	// A root may itself be reached by a link; one file may be allowed alone.
	if got, err := rules(t, Options{Paths: []string{filepath.Join(other, "byname")}}).Model(in); err != nil || got != in {
		t.Errorf("%q %v", got, err)
	}
	if _, err := rules(t, Options{Paths: []string{in}}).Model(in); err != nil {
		t.Error(err)
	}
	if _, err := rules(t, Options{Paths: []string{in}}).Model(filepath.Join(root, "good")); err == nil {
		t.Error("the folder of an allowed file is allowed")
	}
	var none *Rules
	if _, err := none.Model(in); !errors.Is(err, ErrRefused) {
		t.Errorf("no rules: %v", err)
	}
	for _, bad := range []string{"", "/", "a\nb"} {
		if _, err := New(Options{Paths: []string{bad}}); err == nil {
			t.Errorf("--allow-path %q is taken", bad)
		}
	}
}

func TestEndpoint(t *testing.T) {
	r := rules(t, Options{Endpoints: []string{"https://api.example/v1,EXAMPLE_KEY", "http://127.0.0.1:8080", "http://[::1]:9/v1"}})
	for _, ok := range [][2]string{
		{"https://api.example/v1", "EXAMPLE_KEY"}, {"https://API.example:443/v1/", "EXAMPLE_KEY"}, {"https://api.example/v1", ""},
		{"https://api.example/v1/chat/completions", "EXAMPLE_KEY"}, {"http://127.0.0.1:8080/v1", ""}, {"http://127.0.0.1:8080", ""}, {"http://[::1]:9/v1", ""},
	} {
		if err := r.Endpoint(ok[0], ok[1]); err != nil {
			t.Errorf("%v: %v", ok, err)
		}
	}
	for _, bad := range [][2]string{
		{"https://api.example/v1", "AWS_SECRET_ACCESS_KEY"}, {"https://api.example/v10", "EXAMPLE_KEY"}, {"https://api.example", "EXAMPLE_KEY"}, {"http://api.example/v1", "EXAMPLE_KEY"},
		{"https://api.example:444/v1", ""}, {"https://api.example.evil/v1", "EXAMPLE_KEY"}, {"https://evil/api.example/v1", ""}, {"https://api.example@evil/v1", "EXAMPLE_KEY"},
		{"http://127.0.0.1:8080/v1", "EXAMPLE_KEY"}, {"http://127.0.0.1:80801", ""}, {"http://169.254.169.254/latest", ""}, {"file:///etc/passwd", ""},
		{"https://api.example/v1/../admin", ""}, {"https://api.example/v1/%2e%2e/admin", ""}, {"", ""},
	} {
		if err := r.Endpoint(bad[0], bad[1]); err == nil {
			t.Errorf("%v is allowed", bad)
		}
	}
	if err := r.Endpoint("https://api.example/v1", "OTHER"); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "--allow-url https://api.example:443/v1,OTHER") {
		t.Errorf("%v", err)
	}
	var none *Rules
	if err := none.Endpoint("http://127.0.0.1:1", ""); !errors.Is(err, ErrRefused) {
		t.Errorf("no rules: %v", err)
	}
	for _, bad := range []string{"", "*", "https://", "file:///x", "https://u:secretpass@x", "https://x,sk-secretpass", "https://x,"} {
		if _, err := New(Options{Endpoints: []string{bad}}); err == nil || strings.Contains(err.Error(), "secretpass") {
			t.Errorf("--allow-url %q: %v", bad, err)
		}
	}
}

func TestFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), FileName)
	root := folder(t)
	in := put(t, filepath.Join(root, "m.gguf"))
	r := rules(t, Options{File: file})
	if _, err := r.Model(in); !errors.Is(err, ErrRefused) {
		t.Errorf("before: %v", err)
	}
	more := Options{Paths: []string{in}, Endpoints: []string{"http://[::1]:9/v1", "https://api.example/v1,KEY"}}
	for range 2 {
		if err := Append(file, more); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil || string(b) != "path "+in+"\nurl http://[::1]:9/v1\nurl https://api.example:443/v1,KEY\n" {
		t.Errorf("%q %v", b, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", st.Mode(), err)
	}
	if got, err := r.Model(in); err != nil || got != in {
		t.Errorf("%q %v", got, err)
	}
	if err := r.Endpoint("https://api.example/v1", "KEY"); err != nil {
		t.Error(err)
	}
	// A line that was cut off is no rule, also not after the next one was added.
	if err := os.WriteFile(file, []byte("path "+filepath.Dir(root)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Model(in); !errors.Is(err, ErrRefused) {
		t.Errorf("a cut line: %v", err)
	}
	if err := Append(file, Options{Endpoints: []string{"https://x"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Model(in); !errors.Is(err, ErrRefused) {
		t.Errorf("a cut line before another: %v", err)
	}
	if err := os.WriteFile(file, []byte("path relative\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Model(in); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("%v", err)
	}
}

// FuzzModel: whatever a spec names, what comes back lies in the root, links followed.
func FuzzModel(f *testing.F) {
	root, other := folder(f), folder(f)
	put(f, filepath.Join(root, "a", "m.gguf"))
	put(f, filepath.Join(other, "secret"))
	link(f, other, filepath.Join(root, "leak"))
	link(f, "a", filepath.Join(root, "b"))
	r := rules(f, Options{Paths: []string{root}})
	for _, s := range []string{"a/m.gguf", "b/m.gguf", "leak/secret", "../x", root, other, "/", "a/./m.gguf"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		for _, n := range []string{name, root + "/" + name, root + name} {
			if got, err := r.Model(n); err == nil && got != root && !strings.HasPrefix(got, root+"/") {
				t.Errorf("Model(%q) = %q", n, got)
			}
		}
	})
}

// FuzzEndpoint: only the host, scheme, port and folder that the rule names.
func FuzzEndpoint(f *testing.F) {
	r := rules(f, Options{Endpoints: []string{"https://api.example/v1,KEY"}})
	for _, s := range []string{"https://api.example/v1", "https://API.EXAMPLE:443/v1/x", "https://api.example@x/v1", "https://x/v1", "https://api.example/v1/../x"} {
		f.Add(s, "KEY")
	}
	f.Fuzz(func(t *testing.T, base, key string) {
		if r.Endpoint(base, key) != nil {
			return
		}
		low := strings.ToLower(base)
		rest, ok := strings.CutPrefix(low, "https://api.example")
		rest = strings.TrimPrefix(strings.TrimPrefix(rest, "."), ":443")
		if !ok || !strings.HasPrefix(rest, "/v1") || strings.ContainsAny(base, "@?#") || key != "" && key != "KEY" {
			t.Errorf("%q with key %q is allowed", base, key)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("path /srv/models\nurl https://x/v1,KEY\n# x\n"))
	f.Add([]byte("path /srv"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parse(b)
		if err != nil {
			return
		}
		for _, p := range s.paths {
			if !filepath.IsAbs(p) || p == "/" {
				t.Errorf("path %q", p)
			}
		}
	})
}
