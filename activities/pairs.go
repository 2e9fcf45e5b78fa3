package activities

import (
	"context"
	"fmt"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/store"
)

// JoinPairsInput has the two chains of answers.
type JoinPairsInput struct {
	Plan    store.Ref  `json:"plan"`
	Key     string     `json:"key"`
	Teacher *store.Ref `json:"teacher"`
	Student *store.Ref `json:"student"`
}

// JoinPairs joins the teacher's and the student's kept answers by prompt into pairs, up to the target, in the order of
// the prompts, writes the data set folder and fails under the floor.
func (d *Data) JoinPairs(ctx context.Context, in JoinPairsInput) (Stage, error) {
	p, err := getPlan(ctx, d.Store, in.Plan)
	if err != nil {
		return Stage{}, err
	}
	chosen, err := d.answers(ctx, in.Teacher)
	if err != nil {
		return Stage{}, err
	}
	rejected, err := d.answers(ctx, in.Student)
	if err != nil {
		return Stage{}, err
	}
	st := Stage{Kind: KindPreferences, Key: in.Key}
	pairs, err := PairsOf(p, chosen, rejected, &st)
	if err != nil {
		return Stage{}, err
	}
	return d.keepPairs(ctx, p, st, pairs)
}

// keepPairs writes the data set of kept pairs, and fails under the floor.
func (d *Data) keepPairs(ctx context.Context, p Plan, st Stage, pairs []dataset.Pair) (_ Stage, err error) {
	st.Kept = int64(len(pairs))
	if len(pairs) < p.Spec.Preferences.MinPairs {
		return Stage{}, fatal(StageFailed, fmt.Errorf("preferences: %d of %d candidates made pairs, preferences.min_pairs is %d; dropped: %v; try a stronger teacher, more preferences.max_candidates or wider filters",
			len(pairs), st.Rows, p.Spec.Preferences.MinPairs, st.Dropped))
	}
	st.Dropped = counts(st.Dropped)
	if st.Parts, err = dataset.WriteParts(ctx, d.Store, "parts/pairs", pairs); err != nil {
		return Stage{}, err
	}
	st.Folder, err = writeFolder(ctx, d.Store, p, "dpo", st, pairs)
	return st, err
}

// answers reads all rows of a chain in order.
func (d *Data) answers(ctx context.Context, last *store.Ref) ([]dataset.Response, error) {
	nodes, err := chain(ctx, d.Store, last)
	if err != nil {
		return nil, err
	}
	var refs []store.Ref
	for _, n := range nodes {
		refs = append(refs, n.Part)
	}
	return dataset.ReadParts[dataset.Response](ctx, d.Store, refs)
}

// writeFolder lays a data set out as Hugging Face datasets loads it: README.md, TABLE/train-*.parquet, __meta/manifest.json.
// Keys are named by the stage, bytes follow from the rows: writing twice is writing once.
func writeFolder[T any](ctx context.Context, s *store.Store, p Plan, table string, st Stage, rows []T) (string, error) {
	folder := "datasets/" + p.Name + "-" + table + "-" + st.Key
	data, err := encodeTable(p, st, rows)
	if err != nil {
		return "", err
	}
	if _, err := s.PutKey(ctx, folder+tableFile(table), data); err != nil {
		return "", err
	}
	if _, err := s.PutKey(ctx, folder+"/README.md", dataset.Card(p.Name+" "+table, table)); err != nil {
		return "", err
	}
	m := dataset.Manifest{Kind: st.Kind, InputHash: st.Key, Parts: st.Parts, Rows: st.Rows, Kept: st.Kept, Dropped: st.Dropped,
		Info: map[string]string{"constitution": p.Name, "model": p.Model.Name, "model_sha256": p.Model.SHA256, "kernel_variant": p.Variant}}
	return folder, dataset.CommitManifest(ctx, s, folder+"/__meta/manifest.json", m)
}

func tableFile(table string) string { return "/" + table + "/train-00000-of-00001.parquet" }

// encodeTable is the whole data set of a stage as one Parquet file: its bytes follow from the rows.
func encodeTable[T any](p Plan, st Stage, rows []T) ([]byte, error) {
	return dataset.EncodeParquet(rows, map[string]string{
		"opencharacter.stage": st.Kind, "opencharacter.key": st.Key, "opencharacter.constitution_sha256": p.Constitution.SHA256,
		"opencharacter.model_sha256": p.Model.SHA256, "opencharacter.seed": fmt.Sprint(p.Spec.Seed)})
}
