package activities

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
)

// Import is rows that somebody else made, to be stored as a data set of their own.
type Import struct {
	Name  string                 // see [CheckImportName]
	Kind  string                 // KindPreferences or KindIntrospection
	Pairs []dataset.Pair         // of KindPreferences
	Talks []dataset.Conversation // of KindIntrospection
	// Filter has the limits of the quality filters, which are those of a run.
	Filter spec.Filter
}

// Imported is a stored import.
type Imported struct {
	Stage
	// File is what a spec names in preferences.file or introspection.file: "ref:uploads/...".
	File string `json:"file"`
	// Existed says that the same rows were stored under that name before.
	Existed bool `json:"existed"`
}

// infoImport marks the manifest of an import; its value is the data set's name. The others say where its files lie.
const (
	infoImport = "import"
	infoFolder = "folder"
	infoFile   = "file"
)

var importName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}$`)

// CheckImportName refuses names that could be taken for a file or cannot be part of a key.
func CheckImportName(name string) error {
	lower := strings.ToLower(name)
	if !importName.MatchString(name) || strings.Contains(name, "..") || strings.HasSuffix(lower, ".jsonl") || strings.HasSuffix(lower, ".parquet") || strings.HasSuffix(lower, ".json") {
		return fmt.Errorf("data set name %.120q: use letters, digits, dot, dash and underscore, at most 100, and no ending of a file", name)
	}
	return nil
}

// Sifted is an import with what the filters left.
type Sifted struct {
	Import
	// Stage has the counts.
	Stage Stage
	err   error
}

// Sift applies the quality filters of a run; it cleans the rows in place. What a run holds out for its evaluation is not
// known here: the run drops it. So do filters of the program's own.
func (in Import) Sift() Sifted {
	in.Filter.Own = nil
	var err error
	st := Stage{Kind: in.Kind, Dropped: map[string]int64{}}
	if in.Kind == KindPreferences {
		st.Rows = int64(len(in.Pairs))
		in.Pairs, err = siftPairs(Plan{}, in.Filter, in.Pairs, nil, st.Dropped)
		st.Kept = int64(len(in.Pairs))
	} else {
		st.Rows = int64(len(in.Talks))
		in.Talks, err = siftTalks(Plan{}, in.Filter, in.Talks, st.Dropped)
		st.Kept = int64(len(in.Talks))
	}
	return Sifted{in, st, err}
}

// Save stores the rows under datasets/NAME. The manifest is written last and is all that makes the
// data set be there: whoever is killed before has changed nothing, and another import can take the name. The same rows
// again are no error; other rows under a name that is taken are store.ErrConflict.
func (in Sifted) Save(ctx context.Context, s *store.Store) (Imported, error) {
	if in.err != nil {
		return Imported{}, in.err
	}
	if err := CheckImportName(in.Name); err != nil {
		return Imported{}, err
	}
	var c collectors
	if err := c.held(ctx, s); err != nil {
		return Imported{}, fmt.Errorf("import: %w", err)
	}
	if _, ok, err := s.ReadHead(ctx, runStream(in.Name)); err != nil {
		return Imported{}, err
	} else if ok {
		return Imported{}, fmt.Errorf("a run is called %s, and its data sets go by that name: %w; choose another", in.Name, store.ErrConflict)
	}
	st := in.Stage
	if st.Kept == 0 {
		return Imported{Stage: st}, fmt.Errorf("none of the %d rows passed, so nothing is stored; dropped: %v", st.Rows, st.Dropped)
	}
	st.Dropped = counts(st.Dropped)
	out, err := in.write(ctx, s, st)
	if err != nil || out.Existed {
		return out, err
	}
	// A collector that took its inventory before the manifest was there may still remove what it did not see named: wait for
	// its end, and write again what is gone. One that begins now sees the manifest.
	for waited := false; ; waited = true {
		held := c.held(ctx, s)
		if held == nil && !waited {
			return out, nil
		}
		if held == nil {
			_, err = in.write(ctx, s, st)
			return out, err
		}
		select {
		case <-ctx.Done():
			return out, fmt.Errorf("import: %w; give the same command again when that is over", held)
		case <-time.After(time.Second):
		}
	}
}

// write stores parts, the folder, the file that a run reads, and at last the manifest.
func (in Sifted) write(ctx context.Context, s *store.Store, st Stage) (Imported, error) {
	table, jsonl := "dpo", dataset.PreferenceJSONL(in.Pairs)
	if in.Kind == KindIntrospection {
		table, jsonl = "introspection", dataset.IntrospectionJSONL(in.Talks)
	}
	if len(jsonl) > dataset.MaxJSONLBytes {
		return Imported{}, fmt.Errorf("the kept rows have %d bytes as JSON lines; the limit of a run is %d (256 MiB); import less", len(jsonl), dataset.MaxJSONLBytes)
	}
	var err error
	if in.Kind == KindPreferences {
		st.Parts, err = dataset.WriteParts(ctx, s, "parts/pairs", in.Pairs)
	} else {
		st.Parts, err = dataset.WriteParts(ctx, s, "parts/introspection", in.Talks)
	}
	if err != nil {
		return Imported{}, err
	}
	st.Key = dataset.InputHash(map[string]any{"kind": in.Kind, "parts": st.Parts, "rows": st.Rows, "dropped": st.Dropped})[:32]
	st.Folder = importFolder(in.Name, st.Key)
	meta := map[string]string{"opencharacter.stage": st.Kind, "opencharacter.key": st.Key, "opencharacter.import": in.Name}
	var data []byte
	if in.Kind == KindPreferences {
		data, err = dataset.EncodeParquet(in.Pairs, meta)
	} else {
		data, err = dataset.EncodeParquet(in.Talks, meta)
	}
	if err != nil {
		return Imported{}, err
	}
	for name, b := range map[string][]byte{tableFile(table): data, "/README.md": dataset.Card(in.Name+" "+table, table)} {
		if err := putDerived(ctx, s, st.Folder+name, b); err != nil {
			return Imported{}, err
		}
	}
	file, err := s.Put(ctx, "uploads", ".jsonl", jsonl)
	if err != nil {
		return Imported{}, err
	}
	out := Imported{Stage: st, File: "ref:" + file.Key}
	m := dataset.Manifest{Kind: st.Kind, InputHash: st.Key, Parts: st.Parts, Rows: st.Rows, Kept: st.Kept, Dropped: st.Dropped,
		Info: map[string]string{infoImport: in.Name, infoFolder: st.Folder, infoFile: out.File}}
	key := "datasets/" + in.Name + "/__meta/manifest.json"
	there, ok, err := dataset.ReadManifest(ctx, s, key)
	if err != nil {
		return Imported{}, fmt.Errorf("%w; `character repair` sets it aside", err)
	}
	if !ok {
		err = dataset.CommitManifest(ctx, s, key, m)
	} else if out.Existed = there.InputHash == m.InputHash; !out.Existed {
		err = store.ErrConflict
	}
	if errors.Is(err, store.ErrConflict) {
		return Imported{}, fmt.Errorf("a data set %s is there already, with other rows: %w; choose another name", in.Name, store.ErrConflict)
	}
	return out, err
}

// importFolder is named by the rows too: what a killed import left is never mixed with what another one writes.
func importFolder(name, key string) string { return "datasets/" + name + "/" + key[:16] }

// putDerived writes what follows from its key. Other bytes there are damage, and are set aside.
func putDerived(ctx context.Context, s *store.Store, key string, data []byte) error {
	_, err := s.PutKey(ctx, key, data)
	if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrCorrupt) {
		return err
	}
	if _, err := s.SetAside(ctx, key); err != nil {
		return err
	}
	_, err = s.PutKey(ctx, key, data)
	return err
}

// ImportOf reads what a manifest says about an import; ok is false for the data set of a run's stage.
func ImportOf(m dataset.Manifest) (folder, file string, ok bool) {
	return m.Info[infoFolder], m.Info[infoFile], m.Info[infoImport] != ""
}
