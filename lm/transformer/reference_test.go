package transformer_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencharacter/opencharacter/lm/safetensors"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// These tests compare the engine with outputs recorded from torch, transformers and
// PEFT (testdata/ref/README.md). Weights are exact in bf16, so only float32 rounding
// and the order of sums may differ.
//
// The tolerance. Both sides round every product of a sum of n terms at most once, so
// each is within gamma_n * sum|terms| of the exact value, gamma_n ~ n*2^-24, and
// typically within sqrt(n)*2^-24 of it. How these errors carry through the layers is
// not estimated but measured: the recording holds torch's own greatest error
// against the same computation in float64 (float32_error). Torch sums in 16 or more
// parallel lanes, we in one chain, whose typical error is up to sqrt(16) = 4 times larger.
// |ours - torch| <= |ours - exact| + |torch - exact| <= (4 + 1) * float32_error;
// the factor 8 leaves room for the greatest of our errors falling on a worse value.
const slack = 8

// refRows is rows.json.
type refRows struct {
	Tokens  []int32      `json:"tokens"`
	Offsets []int32      `json:"offsets"`
	Mask    []int        `json:"mask"`
	Pairs   [][2]int     `json:"pairs"`
	SFTRows []int        `json:"sft_rows"`
	Ref     [][2]float64 `json:"ref"`
	Beta    float64      `json:"beta"`
	NLL     float64      `json:"nll_weight"`
	DPO     refLoss      `json:"dpo"`
	SFT     refLoss      `json:"sft"`
	Error   struct {
		Forward map[string]float64 `json:"forward"`
		DPO     refError           `json:"dpo"`
		SFT     refError           `json:"sft"`
	} `json:"float32_error"`
}

type refLoss struct {
	Loss     float64 `json:"loss"`
	GradNorm float64 `json:"grad_norm"`
}

type refError struct {
	Gradient struct {
		Abs      float64 `json:"abs"`
		RelToMax float64 `json:"rel_to_max"`
	} `json:"gradient"`
	Loss float64 `json:"loss"`
}

// recording is one folder of testdata/ref.
type recording struct {
	dir    string
	model  *transformer.Model
	frozen *transformer.Adapter
	both   []*transformer.Adapter
	rows   refRows
}

func readFile(t testing.TB, parts ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func readAdapter(t testing.TB, dir string, cfg transformer.Config) *transformer.Adapter {
	t.Helper()
	a, err := transformer.ReadPEFT(map[string][]byte{
		"adapter_config.json":       readFile(t, dir, "adapter_config.json"),
		"adapter_model.safetensors": readFile(t, dir, "adapter_model.safetensors"),
	}, cfg)
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	return a
}

func openRecording(t *testing.T, name string, load func(dir string) (*transformer.Model, error)) *recording {
	t.Helper()
	dir := filepath.Join("testdata", "ref", name)
	m, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := &recording{dir: dir, model: m}
	if err := json.Unmarshal(readFile(t, dir, "rows.json"), &r.rows); err != nil {
		t.Fatal(err)
	}
	r.frozen = readAdapter(t, filepath.Join(dir, "frozen"), m.Config)
	r.both = []*transformer.Adapter{r.frozen, readAdapter(t, filepath.Join(dir, "trainable"), m.Config)}
	return r
}

func openTensors(t *testing.T, path string) *safetensors.File {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// near compares values with a recorded tensor and reports the greatest difference.
func near(t *testing.T, f *safetensors.File, name string, got []float32, tolerance float64) {
	t.Helper()
	want, err := f.Floats(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, recorded %d", name, len(got), len(want))
	}
	worst, at := 0.0, 0
	for i := range got {
		if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= worst) {
			worst, at = d, i
		}
	}
	if !(worst <= tolerance) {
		t.Errorf("%s: value %d is %v, recorded %v: difference %.3g exceeds %.3g", name, at, got[at], want[at], worst, tolerance)
	} else {
		t.Logf("%s: greatest difference %.3g, tolerance %.3g", name, worst, tolerance)
	}
}

func TestRecordedTinyModels(t *testing.T) {
	for _, name := range []string{"tiny-llama", "tiny-qwen3", "tiny-llama3", "tiny-gemma3"} {
		t.Run(name, func(t *testing.T) {
			r := openRecording(t, name, func(dir string) (*transformer.Model, error) {
				return transformer.LoadSafetensors(filepath.Join(dir, "model"))
			})
			if c := r.model.Config; name == "tiny-qwen3" && (c.Tied || c.Heads*c.HeadDim == c.Width) {
				t.Error("this recording is to cover an untied head and heads wider than Width / Heads")
			} else if name == "tiny-gemma3" && (c.Window == 0 || c.Window >= 20 || c.RopeScaling.Type != "linear") {
				t.Error("this recording is to cover windows shorter than the rows and linear rope scaling")
			}
			f := openTensors(t, filepath.Join(r.dir, "forward.safetensors"))
			r.forward(t, f)
			r.logits(t, f)
			r.gradients(t)
		})
	}
}

// batch is the packed batch with every position that has a successor.
func (r *recording) batch() (transformer.Rows, []int32) {
	rows := transformer.Rows{Tokens: r.rows.Tokens, Offsets: r.rows.Offsets}
	var positions []int32
	for p := range r.rows.Tokens {
		if !slices.Contains(r.rows.Offsets, int32(p+1)) {
			positions = append(positions, int32(p))
		}
	}
	return rows, positions
}

func (r *recording) stacks() map[string][]*transformer.Adapter {
	return map[string][]*transformer.Adapter{"base": nil, "frozen": {r.frozen}, "both": r.both}
}

// forward compares the log-probs of the packed batch.
func (r *recording) forward(t *testing.T, f *safetensors.File) {
	rows, positions := r.batch()
	for name, stack := range r.stacks() {
		got, err := r.model.LogProbs(transformer.NewWorkspace(), rows, positions, stack)
		if err != nil {
			t.Fatal(err)
		}
		name = "logprobs." + name
		near(t, f, name, got, slack*r.rows.Error.Forward[name])
	}
}

// logits compares the logits at every position, decoded one token at a time.
func (r *recording) logits(t *testing.T, f *safetensors.File) {
	m, ws := r.model, transformer.NewWorkspace()
	decode := func(stack []*transformer.Adapter) (all, last []float32, lse []float32) {
		c := m.NewCache()
		for i := range len(r.rows.Offsets) - 1 {
			s, logits := c.NewSequence(), tensor.New(1, m.Vocab)
			for _, id := range r.rows.Tokens[r.rows.Offsets[i]:r.rows.Offsets[i+1]] {
				if err := m.Extend(ws, c, []transformer.Chunk{{Seq: s, Tokens: []int32{id}}}, stack, logits); err != nil {
					t.Fatal(err)
				}
				all, lse = append(all, logits.Data()...), append(lse, tensor.LogSumExp(logits.Data()))
			}
			last = append(last, logits.Data()...)
			c.Free(s)
		}
		return all, last, lse
	}
	all, _, lse := decode(r.both)
	near(t, f, "logits.both", all, slack*r.rows.Error.Forward["logits.both"])
	near(t, f, "lse.both", lse, slack*r.rows.Error.Forward["lse.both"])
	_, last, _ := decode(nil)
	near(t, f, "last_logits.base", last, slack*r.rows.Error.Forward["last_logits.base"])
}

// gradients passes the recorded dLoss/dlogprob back and compares every matrix.
func (r *recording) gradients(t *testing.T) {
	f := openTensors(t, filepath.Join(r.dir, "grad.safetensors"))
	var paired []int
	for _, p := range r.rows.Pairs {
		paired = append(paired, p[0], p[1])
	}
	for _, c := range []struct {
		loss string
		rows []int
		want refLoss
		err  refError
	}{{"dpo", paired, r.rows.DPO, r.rows.Error.DPO}, {"sft", r.rows.SFTRows, r.rows.SFT, r.rows.Error.SFT}} {
		rows, positions := r.subset(c.rows)
		dlogprob, err := f.Floats(c.loss + ".dlogprob")
		if err != nil {
			t.Fatal(err)
		}
		grads := transformer.NewGradients(r.both[1])
		err = r.model.Grad(transformer.NewWorkspace(), rows, positions, r.both, grads, func([]float32) []float32 { return dlogprob })
		if err != nil {
			t.Fatal(err)
		}
		var squares float64
		for _, g := range grads.Matrices() {
			near(t, f, c.loss+"."+g.Name, g.T.Data(), slack*c.err.Gradient.Abs)
			squares += tensor.SumSquares(g.T.Data())
		}
		// a norm is as exact, relative to itself, as its elements relative to the greatest
		if norm := math.Sqrt(squares); math.Abs(norm-c.want.GradNorm) > slack*c.err.Gradient.RelToMax*c.want.GradNorm {
			t.Errorf("%s: norm of the gradients %v, recorded %v", c.loss, norm, c.want.GradNorm)
		}
	}
}

// subset packs some rows of the batch and their response positions.
func (r *recording) subset(which []int) (rows transformer.Rows, positions []int32) {
	rows.Offsets = []int32{0}
	for _, i := range which {
		for p := r.rows.Offsets[i]; p < r.rows.Offsets[i+1]; p++ {
			if r.rows.Mask[p] == 1 {
				positions = append(positions, int32(len(rows.Tokens))-1)
			}
			rows.Tokens = append(rows.Tokens, r.rows.Tokens[p])
		}
		rows.Offsets = append(rows.Offsets, int32(len(rows.Tokens)))
	}
	return rows, positions
}
