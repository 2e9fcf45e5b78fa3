package activities

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencharacter/opencharacter/store"
)

// Removal is what goes when a run is removed.
type Removal struct {
	// Objects are in the order in which they must go: whoever stops half-way can begin again, because the run's own
	// record goes last.
	Objects []store.Object
	// Bytes is their size together.
	Bytes int64
	// Stages are the finished stages that go; Shared are those that other runs name too, and that stay.
	Stages, Shared []string
}

// Removal tells what only run id needs: its record, its checkpoints, and the stages, data sets, adapters and others that
// no other run's record names. The user's uploads stay, and chunks that nothing names any more are left to Garbage. It holds only
// while no run is unfinished: one that is might reuse a stage that its record does not name yet. A run that is not there gives
// store.ErrNotFound; a record of another run that cannot be read is an error, because it might need anything.
func (v *Inventory) Removal(id string) (Removal, error) {
	var mine *Root
	others := map[string]bool{} // stages that other runs name
	for i := range v.Roots {
		r := &v.Roots[i]
		switch {
		case r.Kind != RootRun:
		case r.Name == id:
			mine = r
		case r.Err != nil:
			return Removal{}, fmt.Errorf("run %s: %s: %w; what it needs cannot be told: `character repair` mends it", r.Name, r.ErrKey, r.Err)
		default:
			for _, s := range r.Record.Stages {
				others[s.Kind+"/"+s.Key] = true
			}
		}
	}
	if mine == nil {
		return Removal{}, fmt.Errorf("run %q: %w", id, store.ErrNotFound)
	}
	var out Removal
	stages, folders, keys := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, s := range mine.Record.Stages {
		name := s.Kind + "/" + s.Key
		if others[name] {
			out.Shared = append(out.Shared, s.Kind)
			continue
		}
		out.Stages = append(out.Stages, s.Kind)
		stages[name], keys[s.Key] = true, true
		if s.Folder != "" {
			folders[s.Folder] = true
		}
	}
	workflows := map[string]bool{} // last parts of the names of the run's own checkpoint streams
	for _, kind := range []string{KindDPO, KindSFT} {
		workflows[shortHash(id+"/"+kind)] = true
	}
	goes := func(r Root) bool {
		switch r.Kind {
		case RootRun:
			return r.Name == id
		case RootStage:
			return stages[r.Name]
		case RootData:
			return folders[r.Name]
		}
		return keys[path.Base(r.Name)] || keys[path.Base(path.Dir(r.Name))] || workflows[path.Base(r.Name)]
	}
	live, gone, prefixes := map[string]bool{}, map[string]bool{}, []string{"runs/" + id + "/"}
	for f := range folders {
		prefixes = append(prefixes, f+"/")
	}
	for _, r := range v.Roots {
		if goes(r) {
			gone[r.Key] = true
			if r.Kind == RootTraining {
				prefixes = append(prefixes, r.Name+"/")
			}
			for _, ref := range r.Refs {
				gone[ref.Key] = true
			}
			continue
		}
		live[r.Key] = true
		for _, ref := range r.Refs {
			live[ref.Key] = true
		}
	}
	for _, o := range v.Objects {
		under := slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(o.Key, p) })
		if live[o.Key] || strings.HasPrefix(o.Key, "uploads/") || !gone[o.Key] && !under {
			continue
		}
		out.Objects = append(out.Objects, o)
		out.Bytes += o.Size
	}
	slices.SortFunc(out.Objects, func(a, b store.Object) int {
		if x, y := turn(a.Key, id), turn(b.Key, id); x != y {
			return x - y
		}
		return strings.Compare(a.Key, b.Key)
	})
	return out, nil
}

// turn is when an object goes: first what others are reached by, so that nothing that is left names what is not.
func turn(key, run string) int {
	kind, _ := rootOf(key)
	switch {
	case key == "runs/"+run+"/HEAD.json":
		return 5
	case strings.HasPrefix(key, "runs/"+run+"/"):
		return 4
	case kind == RootStage:
		return 0
	case kind == RootData:
		return 1
	case kind == RootTraining:
		return 3 // after its commits, which a HEAD.json that is gone would leave as a damaged stream
	}
	return 2
}
