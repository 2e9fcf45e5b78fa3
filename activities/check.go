package activities

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/store"
)

// Damage is an object that is not what it should be.
type Damage struct {
	Key  string `json:"key"`
	What string `json:"what"`
	// Runs need the object; Stages are the index objects of the stages that need it.
	Runs   []string `json:"runs,omitempty"`
	Stages []string `json:"stages,omitempty"`
	// Next says what to do.
	Next string `json:"next"`
	// Harmless damage is overcome by itself: a training falls back by one checkpoint.
	Harmless bool `json:"harmless,omitempty"`

	kind    damageKind
	root    Root
	folders []string // data sets of the stages

	imported string // a data set that the user imported
}

type damageKind int

const (
	damagedHead  damageKind = iota // of a run's or a training's stream
	damagedStage                   // a stage's index, or what only its stage can make again
	damagedInput                   // what nobody but the user can give again
	damagedLoose                   // nothing at rest names it
)

// Bytes is the size of all objects together.
func (v *Inventory) Bytes() (n int64) {
	for _, o := range v.Objects {
		n += o.Size
	}
	return n
}

// Check looks for damage. Without deep it goes by names and sizes, with deep it reads every object that names or hashes speak for.
func (v *Inventory) Check(ctx context.Context, deep bool) ([]Damage, error) {
	found := map[string]*Damage{}
	add := func(key, what string, r *Root) {
		d := found[key]
		if d == nil {
			d = &Damage{Key: key, What: what, kind: damagedLoose}
			found[key] = d
		}
		if r != nil {
			d.blame(*r)
		}
	}
	sound := map[string]string{} // key -> what is wrong with it, "" = nothing
	for i := range v.Roots {
		r := &v.Roots[i]
		if r.Err != nil {
			add(r.ErrKey, plain(r.Err), r)
		}
		for _, ref := range r.Refs {
			what, looked := sound[ref.Key]
			if !looked {
				var err error
				if what, err = v.checkRef(ctx, ref, deep); err != nil {
					return nil, err
				}
				sound[ref.Key] = what
			}
			if what != "" {
				add(ref.Key, what, r)
			}
		}
		if err := v.checkTables(ctx, r, deep, sound, add); err != nil {
			return nil, err
		}
	}
	if deep {
		for _, key := range slices.Sorted(maps.Keys(v.Objects)) {
			m := contentNamed.FindStringSubmatch(key)
			if _, looked := sound[key]; m == nil || looked {
				continue
			}
			data, err := v.bucket.GetKey(ctx, key)
			if err != nil && !lost(err) {
				return nil, err
			}
			if sum := sha256.Sum256(data); err != nil || hex.EncodeToString(sum[:16]) != m[1] {
				add(key, "its bytes are not those its name promises", nil)
			}
		}
	}
	v.lostStreams(add)
	out := make([]Damage, 0, len(found))
	for _, k := range slices.Sorted(maps.Keys(found)) {
		d := found[k]
		d.finish(v)
		out = append(out, *d)
	}
	return out, nil
}

// lostStreams finds streams that have commits and no HEAD.json.
func (v *Inventory) lostStreams(add func(string, string, *Root)) {
	for key := range v.Objects {
		stream, _, ok := strings.Cut(key, "/data/")
		if _, has := v.Objects[stream+"/HEAD.json"]; !ok || has {
			continue
		}
		if kind, name := rootOf(stream + "/HEAD.json"); kind != "" {
			add(stream+"/HEAD.json", "it is missing, and its commits are there", &Root{Key: stream + "/HEAD.json", Kind: kind, Name: name})
		}
	}
}

func (v *Inventory) checkRef(ctx context.Context, ref store.Ref, deep bool) (what string, err error) {
	o, ok := v.Objects[ref.Key]
	switch {
	case !ok:
		return "it is missing", nil
	case ref.SHA256 == "":
		return "", nil
	case o.Size != ref.Size:
		return fmt.Sprintf("it has %d bytes and should have %d", o.Size, ref.Size), nil
	case !deep:
		return "", nil
	}
	data, err := v.bucket.GetKey(ctx, ref.Key)
	if err == nil {
		err = matches(ref, data)
	}
	if lost(err) {
		return plain(err), nil
	}
	return "", err
}

// checkTables makes a run's data set files again from their parts and compares.
func (v *Inventory) checkTables(ctx context.Context, r *Root, deep bool, sound map[string]string, add func(string, string, *Root)) error {
	if r.Import != "" && !v.has(r.Import+"/README.md") {
		add(r.Import+"/README.md", "it is missing", r)
	}
	if r.Import != "" && !v.has(r.Import+tableFile("dpo")) && !v.has(r.Import+tableFile("introspection")) {
		add(r.Import, "its Parquet file is missing", r)
	}
	for _, st := range r.Record.Stages {
		table := map[string]string{KindPreferences: "dpo", KindIntrospection: "introspection"}[st.Kind]
		if table == "" || st.Folder == "" {
			continue
		}
		for _, name := range []string{tableFile(table), "/README.md", "/__meta/manifest.json"} {
			if _, ok := v.Objects[st.Folder+name]; !ok {
				add(st.Folder+name, "it is missing", r)
			}
		}
		key := st.Folder + tableFile(table)
		if _, ok := v.Objects[key]; !ok || !deep || r.Plan.Name == "" || slices.ContainsFunc(st.Parts, func(p store.Ref) bool { return sound[p.Key] != "" }) {
			continue
		}
		want, err := v.tableOf(ctx, r.Plan, st)
		if err != nil {
			return err
		}
		have, err := v.bucket.GetKey(ctx, key)
		if err != nil && !lost(err) {
			return err
		}
		if !bytes.Equal(have, want) {
			add(key, fmt.Sprintf("its %d bytes are not what its rows make", v.Objects[key].Size), r)
		}
	}
	return nil
}

func (v *Inventory) tableOf(ctx context.Context, p Plan, st Stage) ([]byte, error) {
	if st.Kind == KindPreferences {
		return remake[dataset.Pair](ctx, v.bucket, p, st)
	}
	return remake[dataset.Conversation](ctx, v.bucket, p, st)
}

func remake[T any](ctx context.Context, b Bucket, p Plan, st Stage) ([]byte, error) {
	var rows []T
	for _, part := range st.Parts {
		data, err := b.GetKey(ctx, part.Key)
		if err != nil {
			return nil, err
		}
		more, err := dataset.DecodeParquet[T](data)
		if err != nil {
			return nil, fmt.Errorf("part %s: %w", part.Key, err)
		}
		rows = append(rows, more...)
	}
	return encodeTable(p, st, rows)
}

// blame notes a root that names the damaged object.
func (d *Damage) blame(r Root) {
	switch {
	case r.Kind == RootTraining, r.Kind == RootRun && strings.HasPrefix(d.Key, "runs/"):
		d.kind, d.root = damagedHead, r
	case r.Kind == RootRun:
		d.kind = damagedInput
	case r.Kind == RootStage:
		d.Stages = with(d.Stages, r.Key)
	case r.Import != "":
		d.imported = strings.TrimPrefix(r.Name, "datasets/")
	}
	if r.Kind == RootRun {
		d.Runs = with(d.Runs, r.Name)
	}
}

func with(list []string, s string) []string {
	if s == "" || slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// needs says whether a stage's result names an object.
func (s Stage) needs(key string) bool {
	if s.Folder != "" && strings.HasPrefix(key, s.Folder+"/") {
		return true
	}
	return slices.ContainsFunc(names(mustJSON(s)).refs, func(r store.Ref) bool { return r.Key == key })
}

// finish finds the stages that need the object, and their runs, and says what to do.
func (d *Damage) finish(v *Inventory) {
	for _, r := range v.Roots {
		if r.Folder != "" && strings.HasPrefix(d.Key, r.Folder+"/") {
			d.Stages = with(d.Stages, r.Key)
		}
		if slices.Contains(d.Stages, r.Key) {
			d.folders = with(d.folders, r.Folder)
		}
		for _, st := range r.Record.Stages { // the record holds what the stage's index holds
			if st.needs(d.Key) {
				d.Stages = with(d.Stages, stageObject(st.Kind, st.Key))
			}
			if slices.Contains(d.Stages, stageObject(st.Kind, st.Key)) {
				d.Runs, d.folders = with(d.Runs, r.Name), with(d.folders, st.Folder)
			}
		}
	}
	if d.imported != "" && d.kind == damagedLoose {
		d.kind = damagedInput
	}
	if len(d.Stages) > 0 && d.kind != damagedHead {
		d.kind = damagedStage
	}
	repair := "`character repair"
	if len(d.Runs) == 1 {
		repair += " " + d.Runs[0]
	}
	switch {
	case d.kind == damagedHead && d.root.Kind == RootTraining && d.Key != d.root.Key:
		d.Harmless = true
		d.Next = "nothing: the training goes on from the checkpoint before, with the same result"
		if p := strings.Split(d.root.Name, "/"); len(p) > 1 && (v.has(stageObject(KindDPO, p[1])) || v.has(stageObject(KindSFT, p[1]))) {
			d.Next = "nothing: the training is finished and needs its checkpoints no more"
		}
	case d.kind == damagedHead:
		d.Next = repair + "` restores the commit before"
	case d.kind == damagedStage:
		d.Next = repair + "` sets it aside and makes its stage again, with the same bytes"
	case d.kind == damagedInput && d.imported != "":
		d.Next = "import it again: `character data import FILE --id " + d.imported + "` makes it whole"
	case d.kind == damagedInput:
		d.Next = "restore it from a backup, or start the run again with `character run NAME --id` and its files: finished stages are reused"
	default:
		d.Harmless = true
		d.Next = repair + "` sets it aside: a run that needs it makes it again"
	}
}

func (v *Inventory) has(key string) bool { _, ok := v.Objects[key]; return ok }

// plain is an error of the bucket without the words that only say what kind it is.
func plain(err error) string { return strings.TrimPrefix(err.Error(), store.ErrCorrupt.Error()+": ") }

// Mend makes a damage good as far as that is possible without computing: a stream's HEAD.json is restored from its newest whole commit; what a
// stage or a run can make again is set aside, with the stage's index, so that it is made again. It returns what it did,
// a line each. What only the user can give again is an error.
func Mend(ctx context.Context, s *store.Store, d Damage) (did []string, err error) {
	aside := func(key string) error {
		_, _, err := s.Stat(ctx, key)
		if lost(err) {
			return nil
		}
		if err != nil {
			return err
		}
		to, err := s.SetAside(ctx, key)
		if err == nil {
			did = append(did, fmt.Sprintf("%s is kept as %s", key, to))
		}
		return err
	}
	switch d.kind {
	case damagedHead:
		if d.Harmless {
			return nil, nil
		}
		stream := strings.TrimSuffix(d.root.Key, "/HEAD.json")
		r, ok, err := s.RestoreHead(ctx, stream)
		if err != nil || !ok {
			return nil, err
		}
		line := fmt.Sprintf("%s is restored to step %d, from %s", d.root.Key, r.Head.Step, r.From)
		switch {
		case r.From == "" && d.root.Kind == RootRun:
			line = fmt.Sprintf("run %s has no whole record left: start it again with `character run NAME --id %s`: finished stages are reused", d.root.Name, d.root.Name)
		case r.From == "":
			line = fmt.Sprintf("%s begins anew: no commit of it is whole", d.root.Key)
		}
		if r.Aside != "" {
			line += "; the damaged one is kept as " + r.Aside
		}
		return []string{line}, nil
	case damagedStage:
		keys := append([]string{d.Key}, d.Stages...)
		for _, f := range d.folders { // named by the stage, not by its content: what is damaged there could not be written again
			list, err := s.List(ctx, f+"/")
			if err != nil {
				return nil, err
			}
			for _, o := range list {
				keys = append(keys, o.Key)
			}
		}
		for _, key := range keys {
			if err := aside(key); err != nil {
				return did, err
			}
		}
		return did, nil
	case damagedLoose:
		return did, aside(d.Key)
	}
	return nil, fmt.Errorf("%s: %s; %s", d.Key, d.What, d.Next)
}
