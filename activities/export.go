package activities

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/report"
	"github.com/opencharacter/opencharacter/store"
)

// Names of exported files that carry a clock and are therefore not in SHA256SUMS.
var clocked = []string{timingsFile, "report.html"}

// Export writes everything a run made into dir: the spec, both adapters as PEFT folders (character is the exact rank
// concatenation of DPO and SFT), the data sets as Parquet and JSONL, metrics, timings, the report and SHA256SUMS. Stages
// that are not done yet are left out and named in the returned list.
func Export(ctx context.Context, s *store.Store, id, dir string) (missing []string, err error) {
	return ExportWith(ctx, s, id, dir, Models{})
}

// ExportWith is Export that also writes whole models: see Models. They change none of Export's files.
func ExportWith(ctx context.Context, s *store.Store, id, dir string, models Models) (missing []string, err error) {
	r, p, err := ReadRecord(ctx, s, id)
	if err != nil {
		return nil, err
	}
	base, err := models.base(r, p)
	if err != nil {
		return nil, err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("export: folder %s is not empty; name a new one", dir)
	}
	// All of it or nothing: files are written beside dir, which gets its name when they are complete.
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".partial-")
	if err != nil {
		return nil, fmt.Errorf("export: %w; name another --out", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	x := &exporter{ctx: ctx, s: s, r: r, p: p, dir: work}
	for _, kind := range []string{KindPreferences, KindDPO, KindIntrospection, KindSFT, KindEvaluation} {
		if _, ok := r.Stage(kind); !ok {
			missing = append(missing, kind)
		}
	}
	spec, _ := json.MarshalIndent(p, "", "  ")
	x.write("spec.json", append(spec, '\n'))
	x.pairs()
	x.conversations()
	x.adapters()
	x.metrics()
	if x.err == nil {
		var b strings.Builder
		var d report.Data
		if d, x.err = ReportData(ctx, s, r, p); x.err == nil {
			if x.err = report.Render(&b, d); x.err == nil {
				x.write("report.html", []byte(b.String()))
			}
		}
	}
	x.sums()
	x.models(models, base)
	if x.err != nil {
		return nil, fmt.Errorf("export: %w", roomHint(x.err, dir))
	}
	if err := os.Chmod(work, 0o755); err != nil { // a temporary folder is its owner's only
		return nil, fmt.Errorf("export: %w", err)
	}
	if err := os.Rename(work, dir); err != nil { // an empty dir gives way
		return nil, fmt.Errorf("export: %w", err)
	}
	return missing, nil
}

// exporter writes files until the first error.
type exporter struct {
	ctx     context.Context
	s       *store.Store
	r       Record
	p       Plan
	dir     string
	written []string
	err     error
}

func (x *exporter) write(name string, b []byte) {
	if x.err != nil {
		return
	}
	path := filepath.Join(x.dir, filepath.FromSlash(name))
	if x.err = os.MkdirAll(filepath.Dir(path), 0o755); x.err == nil {
		x.err = os.WriteFile(path, b, 0o644)
	}
	x.written = append(x.written, name)
}

func (x *exporter) stage(kind string) (Stage, bool) {
	st, ok := x.r.Stage(kind)
	return st, ok && x.err == nil
}

// folder copies a data set folder's table.
func (x *exporter) folder(st Stage, table string) {
	b, err := x.s.GetKey(x.ctx, st.Folder+"/"+table+"/train-00000-of-00001.parquet")
	if err != nil {
		x.err = err
		return
	}
	x.write("data/"+table+"/train-00000-of-00001.parquet", b)
}

func (x *exporter) pairs() {
	st, ok := x.stage(KindPreferences)
	if !ok {
		return
	}
	x.folder(st, "dpo")
	rows, err := dataset.ReadParts[dataset.Pair](x.ctx, x.s, st.Parts)
	if err != nil {
		x.err = err
		return
	}
	x.write(x.p.Name+"_dpo.jsonl", dataset.PreferenceJSONL(rows))
}

func (x *exporter) conversations() {
	st, ok := x.stage(KindIntrospection)
	if !ok {
		return
	}
	x.folder(st, "introspection")
	rows, err := dataset.ReadParts[dataset.Conversation](x.ctx, x.s, st.Parts)
	if err != nil {
		x.err = err
		return
	}
	x.write(x.p.Name+"_introspection.jsonl", dataset.IntrospectionJSONL(rows))
}

func (x *exporter) adapters() {
	var both []map[string][]byte
	for _, kind := range []string{KindDPO, KindSFT} {
		st, ok := x.stage(kind)
		if !ok || st.Adapter == nil {
			return
		}
		files := map[string][]byte{}
		for name, ref := range st.Adapter.Files {
			if files[name], x.err = x.s.Get(x.ctx, ref); x.err != nil {
				return
			}
		}
		both = append(both, files)
		if kind == KindDPO {
			x.peft("dpo", files)
		}
	}
	files, err := concat(both, x.p)
	if err != nil {
		x.err = err
		return
	}
	x.peft("character", files)
}

func (x *exporter) peft(folder string, files map[string][]byte) {
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		x.write(folder+"/"+n, files[n])
	}
}

// concat joins DPO and SFT adapter into one with delta = dpo + weight * sft, exactly.
func concat(files []map[string][]byte, p Plan) (map[string][]byte, error) {
	var as []*transformer.Adapter
	for _, f := range files {
		a, err := transformer.ReadPEFT(f, p.Shape)
		if err != nil {
			return nil, err
		}
		as = append(as, a)
	}
	a, err := joined(as, p)
	if err != nil {
		return nil, err
	}
	return a.PEFT(p.Model.Name)
}

// joined is the exported character of a DPO and an SFT adapter.
func joined(as []*transformer.Adapter, p Plan) (*transformer.Adapter, error) {
	return transformer.Concat(p.Shape, as, []float64{1, p.Spec.Export.SFTWeight})
}

func (x *exporter) metrics() {
	for _, f := range []struct {
		name string
		ref  func(Stage) *store.Ref
	}{{metricsFile, func(s Stage) *store.Ref { return s.Metrics }}, {timingsFile, func(s Stage) *store.Ref { return s.Timings }}} {
		var all []byte
		for _, st := range x.r.Stages {
			if r := f.ref(st); r != nil && x.err == nil {
				var b []byte
				b, x.err = x.s.Get(x.ctx, *r)
				all = append(all, b...)
			}
			if f.name == metricsFile && st.Kind == KindEvaluation {
				row := map[string]any{"stage": st.Kind}
				for k, v := range st.Values {
					row[k] = v
				}
				all = append(all, append(mustJSON(row), '\n')...)
			}
		}
		x.write(f.name, all)
	}
}

// sums writes SHA256SUMS in sha256sum's form, over all files that carry no clock.
func (x *exporter) sums() {
	if x.err != nil {
		return
	}
	slices.Sort(x.written)
	var b strings.Builder
	for _, n := range x.written {
		if slices.Contains(clocked, n) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(x.dir, filepath.FromSlash(n)))
		if err != nil {
			x.err = err
			return
		}
		h := sha256.Sum256(data)
		fmt.Fprintf(&b, "%s  %s\n", hex.EncodeToString(h[:]), n)
	}
	x.write("SHA256SUMS", []byte(b.String()))
}

// OpenRunModel loads one of a run's models (base, dpo, character) for use outside a workflow, its weights kept as
// LoadModel takes them.
func OpenRunModel(ctx context.Context, s *store.Store, o hub.Options, id, which, weights string) (*Loaded, []*transformer.Adapter, Record, error) {
	r, p, err := ReadRecord(ctx, s, id)
	if err != nil {
		return nil, nil, r, err
	}
	refs, err := r.Stack(which)
	if err != nil {
		return nil, nil, r, err
	}
	m, err := LoadModel(modelHere(p.Model.Name, o), weights, o)
	if err != nil {
		return nil, nil, r, err
	}
	if err := sameModel(id, p, m.Info.SHA256); err != nil {
		return nil, nil, r, err
	}
	if m.Info.Weights == "" {
		if err := m.compute(p.Model); err != nil {
			return nil, nil, r, err
		}
	}
	var stack []*transformer.Adapter
	for _, ref := range refs {
		a, err := ReadAdapter(ctx, s, m.Model, ref)
		if err != nil {
			return nil, nil, r, err
		}
		stack = append(stack, a)
	}
	return m, stack, r, nil
}

// modelHere is the name or path under which this machine finds a run's model: relative to the folder of models, as on a
// worker.
func modelHere(name string, o hub.Options) string {
	if !hub.IsKnown(name) && !filepath.IsAbs(name) && o.CacheDir != "" {
		if full := filepath.Join(o.CacheDir, name); filepath.IsLocal(name) && exists(full) {
			return full
		}
	}
	return name
}

func sameModel(id string, p Plan, sha256 string) error {
	if sha256 != p.Model.SHA256 {
		return fmt.Errorf("run %s was made with model sha256 %s, this machine has %s; put the same file there", id, p.Model.SHA256, sha256)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
