package activities

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/opencharacter/opencharacter/store"
)

// Garbage is an object that nothing can ever need.
type Garbage struct {
	store.Object
	Why string `json:"why"`
}

// contentNamed are the objects that are named by their content: whoever needs one again writes it again under the same name.
var contentNamed = regexp.MustCompile(`^(?:parts/[a-z]+|plans|constitutions|adapters|metrics|evaluations)/([0-9a-f]{32})\.[a-z]+$`)

// Garbage lists what can be removed, of objects that are older than olderThan at now (the server's time):
//
//   - files of commits that can never become a stream's content any more: their claim was taken over, or has gone on. The stream's epoch
//     decides this, no clock does, so it holds also while runs go on;
//   - only when idle, that is when no run is unfinished and none can begin: parts, plans and others that are named by their
//     content and that no root reaches, and data set folders without a manifest. A run under way may at any moment need
//     one that is there already, and would not write it again.
//
// Everything else stays: what a root reaches, the user's uploads, unknown names. Any root that cannot be read is an error.
func (v *Inventory) Garbage(now time.Time, olderThan time.Duration, idle bool) ([]Garbage, error) {
	live, folders, streams := map[string]bool{}, map[string]bool{}, map[string]store.Head{}
	var errs []error
	for _, r := range v.Roots {
		if r.Err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %s: %w", r.Kind, r.Name, r.ErrKey, r.Err))
			continue
		}
		live[r.Key] = true
		for _, ref := range r.Refs {
			live[ref.Key] = true
			folders[path.Dir(ref.Key)] = true // a commit's folder has a file that nothing names
		}
		switch r.Kind {
		case RootRun, RootTraining:
			streams[strings.TrimSuffix(r.Key, "/HEAD.json")] = r.Head
		case RootStage:
			folders[r.Folder] = true
		case RootData:
			folders[r.Name] = true
		}
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("not everything that names objects can be read, so nothing can be called garbage; `character repair --check` shows more: %w", errors.Join(errs...))
	}
	var out []Garbage
	for _, o := range v.Objects {
		if o.Modified.After(now.Add(-olderThan)) || live[o.Key] {
			continue
		}
		if why := v.why(o.Key, folders, streams, idle); why != "" {
			out = append(out, Garbage{o, why})
		}
	}
	slices.SortFunc(out, func(a, b Garbage) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}

func (v *Inventory) why(key string, folders map[string]bool, streams map[string]store.Head, idle bool) string {
	top, _, _ := strings.Cut(key, "/")
	switch top {
	case "train", "runs":
		stream, _, _ := strings.Cut(key, "/data/")
		head, known := streams[stream]
		step, epoch, _, ok := store.ParseCommitKey(stream, key)
		if !known || !ok || folders[path.Dir(key)] {
			return ""
		}
		// Epochs never go back, and one claim commits one step after the other.
		if epoch < head.Epoch || epoch == head.Epoch && step < head.Step {
			return "an earlier or given-up commit of " + stream
		}
	case "_probe":
		return "left by a probe of the bucket"
	case "datasets":
		if p := strings.SplitN(key, "/", 3); idle && len(p) == 3 && !folders[p[0]+"/"+p[1]] {
			return "a data set that was never finished"
		}
	default:
		if idle && contentNamed.MatchString(key) {
			return "no run, stage or data set names it"
		}
	}
	return ""
}
