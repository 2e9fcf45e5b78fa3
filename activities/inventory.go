package activities

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/store"
)

// Bucket is what an inventory reads: a *store.Store, or the plain files of an embedded server that does not run.
type Bucket interface {
	List(ctx context.Context, prefix string) ([]store.Object, error)
	GetKey(ctx context.Context, key string) ([]byte, error)
}

// Kinds of roots.
const (
	RootRun      = "run"      // runs/ID/HEAD.json
	RootTraining = "training" // train/KEY/WORKFLOW/HEAD.json
	RootStage    = "stage"    // stages/KIND/KEY.json
	RootData     = "data set" // datasets/NAME/__meta/manifest.json
)

// Root is an object that nothing else needs to name: what can be reached from one is live.
type Root struct {
	Key  string
	Kind string
	// Name is the run's id, the stream, KIND/KEY of a stage, or the data set's folder.
	Name string
	// Err says why the root, or something that it names and that names further objects, cannot be read.
	Err error
	// ErrKey is the object of Err.
	ErrKey string
	// Head is the newest state of a run's or a training's stream; Record and Plan are a run's.
	Head   store.Head
	Record Record
	Plan   Plan
	// Refs are all objects that the root names, directly and through others. A SHA256 may be empty: the key is all that is said.
	Refs []store.Ref
	// Folder is the data set of a stage.
	Folder string
	// Import is the folder of an imported data set.
	Import string
}

// Inventory is all that a bucket holds.
type Inventory struct {
	Objects map[string]store.Object
	Roots   []Root
	bucket  Bucket
	known   map[string]named // what JSON objects name, read once
}

// named is what one JSON object says about others.
type named struct {
	refs []store.Ref
	err  error
}

// TakeInventory lists the bucket first and reads its roots after, so that what the listing shows unnamed was not named later by a
// commit that the roots do not show. Roots that cannot be read are in the result with their errors.
func TakeInventory(ctx context.Context, b Bucket) (*Inventory, error) {
	all, err := b.List(ctx, "")
	if err != nil {
		return nil, err
	}
	v := &Inventory{Objects: map[string]store.Object{}, bucket: b, known: map[string]named{}}
	for _, o := range all {
		v.Objects[o.Key] = o
	}
	for _, key := range slices.Sorted(maps.Keys(v.Objects)) {
		kind, name := rootOf(key)
		if kind == "" {
			continue
		}
		r := Root{Key: key, Kind: kind, Name: name}
		if err := v.read(ctx, &r); err != nil {
			return nil, err
		}
		v.Roots = append(v.Roots, r)
	}
	return v, nil
}

// rootOf tells which keys are roots.
func rootOf(key string) (kind, name string) {
	if stream, ok := strings.CutSuffix(key, "/HEAD.json"); ok {
		if id, ok := strings.CutPrefix(stream, "runs/"); ok {
			return RootRun, id
		}
		if strings.HasPrefix(stream, "train/") {
			return RootTraining, stream
		}
	}
	if rest, ok := strings.CutPrefix(key, "stages/"); ok && strings.HasSuffix(rest, ".json") {
		return RootStage, strings.TrimSuffix(rest, ".json")
	}
	if folder, ok := strings.CutSuffix(key, "/__meta/manifest.json"); ok && strings.HasPrefix(folder, "datasets/") {
		return RootData, folder
	}
	return "", ""
}

// read fills a root. What is damaged is in the root's Err; the returned error is one of the way to the bucket.
func (v *Inventory) read(ctx context.Context, r *Root) error {
	data, err := v.bucket.GetKey(ctx, r.Key)
	if lost(err) { // a listed key that is gone was removed meanwhile: it cannot be read either
		r.Err, r.ErrKey = err, r.Key
		return nil
	}
	if err != nil {
		return err
	}
	switch r.Kind {
	case RootRun, RootTraining:
		r.Head, err = store.ParseHead(data)
	case RootStage:
		var st Stage
		if err = strict(data, &st); err == nil && st.Kind+"/"+st.Key != r.Name {
			err = fmt.Errorf("it is of stage %s/%s", st.Kind, st.Key)
		}
		r.Folder = st.Folder
	case RootData:
		if m, merr := dataset.ParseManifest(data); merr == nil && m.Info[infoImport] != "" { // others are their stage's to judge
			r.Import = m.Info[infoFolder]
		}
	}
	if err != nil {
		r.Err, r.ErrKey = err, r.Key
		return nil
	}
	if err := v.follow(ctx, r, data); err != nil || r.Kind != RootRun {
		return err
	}
	run, ok := r.Head.Files["run.json"]
	if !ok {
		return nil // claimed, and nothing recorded yet
	}
	for _, x := range []struct {
		key func() string
		to  any
	}{{func() string { return run.Key }, &r.Record}, {func() string { return r.Record.Plan.Key }, &r.Plan}} {
		if n := v.known[x.key()]; n.err != nil {
			return nil // follow said so
		}
		data, err := v.bucket.GetKey(ctx, x.key())
		if err != nil && !lost(err) {
			return err
		}
		if err == nil {
			err = strict(data, x.to)
		}
		if err != nil {
			r.Err, r.ErrKey = err, x.key()
			return nil
		}
	}
	return nil
}

// follow collects what a root names: any JSON that looks like a ref counts, whichever field it stands in, so that a
// release that adds fields loses nothing. JSON objects that are named are read too, except a checkpoint's own.
func (v *Inventory) follow(ctx context.Context, r *Root, data []byte) error {
	first := names(data)
	if first.err != nil {
		r.Err, r.ErrKey = first.err, r.Key
		return nil
	}
	seen := map[string]bool{}
	open := first.refs
	for len(open) > 0 {
		ref := open[len(open)-1]
		open = open[:len(open)-1]
		if seen[ref.Key] {
			continue
		}
		seen[ref.Key] = true
		r.Refs = append(r.Refs, ref)
		if path.Ext(ref.Key) != ".json" || r.Kind == RootTraining || strings.HasPrefix(ref.Key, "adapters/") {
			continue
		}
		n, ok := v.known[ref.Key]
		if !ok {
			data, err := v.bucket.GetKey(ctx, ref.Key)
			if err != nil && !lost(err) {
				return err
			}
			if err == nil {
				err = matches(ref, data)
			}
			if n = (named{err: err}); err == nil {
				n = names(data)
			}
			v.known[ref.Key] = n
		}
		if n.err != nil && r.Err == nil {
			r.Err, r.ErrKey = n.err, ref.Key
		}
		open = append(open, n.refs...)
	}
	slices.SortFunc(r.Refs, func(a, b store.Ref) int { return strings.Compare(a.Key, b.Key) })
	return nil
}

// lost says that an object is missing or damaged, not that the way to it is.
func lost(err error) bool {
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrCorrupt)
}

// matches checks an object against its ref.
func matches(r store.Ref, data []byte) error {
	if r.SHA256 == "" {
		return nil
	}
	if int64(len(data)) != r.Size {
		return fmt.Errorf("%w: it has %d bytes and should have %d", store.ErrCorrupt, len(data), r.Size)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != r.SHA256 {
		return fmt.Errorf("%w: its bytes have another SHA-256 than its reference promises", store.ErrCorrupt)
	}
	return nil
}

// names finds everything in a JSON value that names an object: refs, and "ref:KEY" as specs have it.
func names(data []byte) (n named) {
	var tree any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		return named{err: fmt.Errorf("%w: it is not JSON: %w", store.ErrCorrupt, err)}
	}
	n.add(tree)
	return n
}

func (n *named) add(tree any) {
	switch t := tree.(type) {
	case []any:
		for _, x := range t {
			n.add(x)
		}
	case map[string]any:
		key, isKey := t["key"].(string)
		sum, isSum := t["sha256"].(string)
		if isKey && isSum && key != "" {
			r := store.Ref{Key: key, SHA256: sum}
			if size, ok := t["size"].(json.Number); ok {
				r.Size, _ = size.Int64() // an impossible size does not match and is reported so
			}
			n.refs = append(n.refs, r)
		}
		for _, k := range slices.Sorted(maps.Keys(t)) {
			n.add(t[k])
		}
	case string:
		if key, ok := strings.CutPrefix(t, "ref:"); ok && strings.HasPrefix(key, "uploads/") {
			n.refs = append(n.refs, store.Ref{Key: key})
		}
	}
}

// strict reads JSON that must be one object of our own.
func strict(data []byte, to any) error {
	if err := json.Unmarshal(data, to); err != nil {
		return fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	return nil
}
