package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/tensor"
	"github.com/opencharacter/opencharacter/testenv/stack"
	"github.com/opencharacter/opencharacter/workflows"
)

func checkKernels() finding {
	v := tensor.Variant()
	return verdict("kernels", v != "generic", fmt.Sprintf("%s on %d cores", v, runtime.NumCPU()), "this CPU has no AVX2: everything works, some thirty times slower")
}

// roomy is the room that a run of the demo needs.
const roomy = 1e9

func checkDisk(dir string, free func(string) (uint64, error)) finding {
	n, err := free(existing(dir))
	switch {
	case err != nil:
		return finding{"disk", levelFail, fmt.Sprintf("of %s: %v", dir, err), "choose another --data"}
	case n < fullDisk:
		return finding{"disk", levelFail, fmt.Sprintf("full: %d MB free for %s", n>>20, dir), "runs wait and lose nothing; make room (`character gc` shows what no run needs) and they go on"}
	case n < roomy:
		return finding{"disk", levelFail, fmt.Sprintf("nearly full: %.1f GB free for %s", float64(n)/1e9, dir), "a run of the demo needs 1 GB; make room (`character gc` shows what no run needs) or choose another --data"}
	}
	return finding{"disk", levelOK, fmt.Sprintf("%.1f GB free for %s", float64(n)/1e9, dir), ""}
}

func checkModels(o hub.Options) []finding {
	have, err := hub.List(o)
	if err != nil {
		return []finding{{"models", levelFail, err.Error(), "mend or remove that folder"}}
	}
	var out []finding
	for _, m := range have {
		out = append(out, finding{"models", levelOK, fmt.Sprintf("%s: %.0f MB at %s", m.Name, float64(m.Size)/1e6, m.Path), ""})
	}
	if len(have) == 0 {
		out = append(out, finding{"models", levelNote, "none is here yet", "the first run gets one, or `character model pull smollm2-135m-instruct`"})
	}
	return out
}

// checkDirectory says who has the data directory.
func checkDirectory(info stack.Info, alive bool, err error) finding {
	const name = "data directory"
	switch {
	case err != nil:
		return finding{name, levelFail, err.Error(), "see above"}
	case alive && info.Ready:
		return finding{name, levelOK, fmt.Sprintf("%s is in use by pid %d: Temporal %s, UI %s, S3 %s", info.Dir, info.PID, info.Temporal, info.UI, info.S3), ""}
	case alive:
		return finding{name, levelFail, fmt.Sprintf("%s is in use by pid %d, which is still starting", info.Dir, info.PID), "try again in a moment; its logs are in " + filepath.Join(info.Dir, "logs")}
	case info.PID != 0:
		return finding{name, levelNote, fmt.Sprintf("%s was left by pid %d, which did not end in order; nothing is lost", info.Dir, info.PID), "`character up` or `character run --id ID` goes on"}
	}
	return finding{name, levelNote, "nothing runs on " + info.Dir, "`character up` or `character run` starts it"}
}

// checkPorts: addresses of the last start that others have taken change at the next one.
func checkPorts(info stack.Info, alive bool, free func(string) error) []finding {
	if alive {
		return nil
	}
	var out []finding
	for _, p := range []struct{ what, flag, address string }{
		{"Temporal", "--temporal-port", info.Temporal}, {"Temporal's HTTP API", "--http-port", info.TemporalHTTP}, {"the Temporal UI", "--ui-port", info.UI}, {"S3", "--s3-port", info.S3},
	} {
		if p.address == "" {
			continue
		}
		if err := free(p.address); err != nil {
			out = append(out, finding{"ports", levelNote, fmt.Sprintf("%s of %s is taken by another program (%v)", p.address, p.what, err),
				fmt.Sprintf("the next start takes another port by itself; stop that program, or choose one with `character up %s PORT`, to have a fixed one", p.flag)})
		}
	}
	return out
}

// portFree tries to listen on a host:port or URL.
func portFree(address string) error {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		address = u.Host
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

// checkSecrets: the S3 keys of a data directory are for its owner.
func checkSecrets(dir string) []finding {
	path := filepath.Join(dir, "credentials.json")
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return []finding{{"credentials", levelFail, err.Error(), "give yourself the right to read it"}}
	case st.Mode().Perm()&0o077 != 0:
		return []finding{{"credentials", levelFail, fmt.Sprintf("%s can be read by others of this machine (mode %04o)", path, st.Mode().Perm()), "chmod 600 " + path}}
	}
	return []finding{{"credentials", levelOK, path + " is its owner's only", ""}}
}

// checkTemporalFile weighs the state of the Temporal server's file against what the bucket has.
func checkTemporalFile(state string, err error, v *activities.Inventory) finding {
	const name = "temporal"
	open := 0
	for _, r := range v.Roots {
		if r.Kind == activities.RootRun && (r.Record.State == workflows.Running || r.Record.State == "") {
			open++
		}
	}
	switch {
	case state == stack.TemporalDamaged:
		return finding{name, levelFail, err.Error(), fmt.Sprintf("`character repair` sets it aside and goes on with the %d unfinished runs of the bucket", open)}
	case state == stack.TemporalMissing && len(v.Objects) > 0:
		return finding{name, levelFail, fmt.Sprintf("the server's SQLite file is missing, and the bucket has data (%d unfinished runs)", open),
			"`character repair` makes a new file and goes on with them; nothing finished is lost"}
	case err != nil:
		return finding{name, levelFail, err.Error(), "mend that, then `character doctor` again"}
	case state == stack.TemporalMissing:
		return finding{name, levelNote, "no server ran here yet", ""}
	}
	return finding{name, levelOK, "the server's SQLite file is whole", ""}
}

// localBucket reads a data directory's bucket as plain files, for when no server runs.
func localBucket(dir string) activities.Bucket {
	return plainFiles(filepath.Join(dir, "s3", stack.Bucket))
}

type plainFiles string

func (p plainFiles) List(_ context.Context, prefix string) ([]store.Object, error) {
	var out []store.Object
	err := filepath.WalkDir(string(p), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == string(p) {
			return fs.SkipAll
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(string(p), path)
		if err != nil || rel == "." {
			return err
		}
		if strings.HasPrefix(d.Name(), ".sgwtmp") { // the server's own
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		key := filepath.ToSlash(rel)
		if d.IsDir() || !strings.HasPrefix(key, prefix) {
			return nil
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		out = append(out, store.Object{Key: key, Size: st.Size(), Modified: st.ModTime()})
		return nil
	})
	return out, err
}

func (p plainFiles) GetKey(_ context.Context, key string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(string(p), filepath.FromSlash(key)))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir) {
		return nil, fmt.Errorf("%s: %w", key, store.ErrNotFound)
	}
	return b, err
}
