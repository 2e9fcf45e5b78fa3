package transformer_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// smolRows is smollm2/rows.json beyond what refRows holds. The adapter is not
// recorded: its numbers follow from a seed.
type smolRows struct {
	refRows
	Adapter struct {
		Rank     int      `json:"rank"`
		Alpha    float64  `json:"alpha"`
		Seed     uint64   `json:"seed"`
		BScale   float64  `json:"b_scale"`
		Matrices []string `json:"matrices"`
	} `json:"adapter"`
	Error map[string]json.RawMessage `json:"float32_error"`
}

type smolGradError struct {
	Norm    float64 `json:"gradient_norm_rel"`
	Samples float64 `json:"gradient_samples"`
}

// loadTestModel loads the real model named by CHARACTER_TESTMODEL.
func loadTestModel(t testing.TB) *transformer.Model {
	t.Helper()
	m, err := openGGUF(testModel(t))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func testModel(t testing.TB) string {
	t.Helper()
	path := os.Getenv("CHARACTER_TESTMODEL")
	if path == "" {
		if strings.Contains(os.Getenv("CHARACTER_REQUIRE"), "model") {
			t.Fatal("CHARACTER_REQUIRE asks for the model, but CHARACTER_TESTMODEL does not name it")
		}
		t.Skip("CHARACTER_TESTMODEL does not name the GGUF file of SmolLM2-135M-Instruct")
	}
	return path
}

// generated fills an adapter from the recording's generator: element i of matrix k is
// (2u/2^24 - 1) * scale with u the top 24 bits of splitmix64(seed<<48 | k<<32 | i).
func generated(t *testing.T, cfg transformer.Config, r smolRows) *transformer.Adapter {
	t.Helper()
	a := transformer.NewAdapter(cfg, r.Adapter.Rank, r.Adapter.Alpha, 0)
	at := map[string]int{}
	for k, name := range r.Adapter.Matrices {
		at[name] = k
	}
	for _, m := range a.Matrices() {
		k, ok := at[m.Name]
		if !ok {
			t.Fatalf("the recording has no matrix %q", m.Name)
		}
		scale := float32(r.Adapter.BScale)
		if strings.Contains(m.Name, "lora_A") {
			scale = float32(1 / math.Sqrt(float64(m.T.Cols)))
		}
		for i := range m.T.Data() {
			z := r.Adapter.Seed<<48 | uint64(k)<<32 | uint64(i)
			z += 0x9e3779b97f4a7c15
			z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
			z = (z ^ z>>27) * 0x94d049bb133111eb
			z ^= z >> 31
			m.T.Data()[i] = float32(float64(z>>40)/(1<<23)-1) * scale
		}
	}
	return a
}

func TestRecordedSmolLM2(t *testing.T) {
	dir := filepath.Join("testdata", "ref", "smollm2")
	m := loadTestModel(t)
	var rows smolRows
	if err := json.Unmarshal(readFile(t, dir, "rows.json"), &rows); err != nil {
		t.Fatal(err)
	}
	tolerance := func(name string) float64 {
		var e float64
		if err := json.Unmarshal(rows.Error[name], &e); err != nil {
			t.Fatalf("float32_error of %s: %v", name, err)
		}
		return slack * e
	}
	f := openTensors(t, filepath.Join(dir, "tensors.safetensors"))
	a := generated(t, m.Config, rows)
	r := &recording{dir: dir, model: m, both: []*transformer.Adapter{a}, rows: rows.refRows}

	packed, positions := r.batch()
	ws := transformer.NewWorkspace()
	for name, stack := range map[string][]*transformer.Adapter{"logprobs.base": nil, "logprobs.adapter": r.both} {
		got, err := m.LogProbs(ws, packed, positions, stack)
		if err != nil {
			t.Fatal(err)
		}
		near(t, f, name, got, tolerance(name))
	}

	// The greatest logits of every position, decoded in one batch, a token of each row at a time.
	ids, err := f.Raw("top.ids")
	if err != nil {
		t.Fatal(err)
	}
	const top = 8
	n := len(rows.Tokens)
	lse, greatest := make([]float32, n), make([]float32, n*top)
	c := m.NewCache()
	seqs := make([]*transformer.Sequence, len(rows.Offsets)-1)
	for i := range seqs {
		seqs[i] = c.NewSequence()
	}
	for step := int32(0); ; step++ {
		var chunks []transformer.Chunk
		var at []int32
		for i, s := range seqs {
			if p := rows.Offsets[i] + step; p < rows.Offsets[i+1] {
				chunks, at = append(chunks, transformer.Chunk{Seq: s, Tokens: rows.Tokens[p : p+1]}), append(at, p)
			}
		}
		if len(chunks) == 0 {
			break
		}
		logits := tensor.New(len(chunks), m.Vocab)
		if err := m.Extend(ws, c, chunks, nil, logits); err != nil {
			t.Fatal(err)
		}
		for k, p := range at {
			lse[p] = tensor.LogSumExp(logits.Row(k))
			for j := range top {
				id := binary.LittleEndian.Uint32(ids[4*(int(p)*top+j):])
				greatest[int(p)*top+j] = logits.Row(k)[id]
			}
		}
	}
	near(t, f, "lse.base", lse, tolerance("lse.base"))
	near(t, f, "top.logits", greatest, tolerance("top.logits"))
	smolGradients(t, r, rows, ws)
}

// smolGradients compares the norm and eight samples of every gradient matrix, under the
// DPO and SFT losses worked out here from the log-probs.
func smolGradients(t *testing.T, r *recording, rows smolRows, ws *transformer.Workspace) {
	f := openTensors(t, filepath.Join(r.dir, "tensors.safetensors"))
	var sums struct {
		Base []float64 `json:"sums_base"`
	}
	if err := json.Unmarshal(readFile(t, r.dir, "rows.json"), &sums); err != nil {
		t.Fatal(err)
	}
	var paired []int
	for _, p := range rows.Pairs {
		paired = append(paired, p[0], p[1])
	}
	for _, c := range []struct {
		name string
		rows []int
		want refLoss
		loss func(total []float64, counts []int) (loss float64, perToken []float64)
	}{
		{"dpo", paired, rows.DPO, func(total []float64, counts []int) (loss float64, d []float64) {
			n := float64(len(total) / 2)
			for i := 0; i < len(total); i += 2 {
				u := rows.Beta * ((total[i] - sums.Base[paired[i]]) - (total[i+1] - sums.Base[paired[i+1]]))
				g, k := rows.Beta/(1+math.Exp(u))/n, float64(counts[i])
				loss += (math.Log1p(math.Exp(-u)) - rows.NLL*total[i]/k) / n
				d = append(d, -g-rows.NLL/n/k, g)
			}
			return loss, d
		}},
		{"sft", rows.SFTRows, rows.SFT, func(total []float64, counts []int) (loss float64, d []float64) {
			n := float64(len(total))
			for i, s := range total {
				loss -= s / float64(counts[i]) / n
				d = append(d, -1/n/float64(counts[i]))
			}
			return loss, d
		}},
	} {
		var e smolGradError
		if err := json.Unmarshal(rows.Error[c.name], &e); err != nil {
			t.Fatal(err)
		}
		batch, positions := r.subset(c.rows)
		grads := transformer.NewGradients(r.both[0])
		err := r.model.Grad(ws, batch, positions, r.both, grads, func(lp []float32) []float32 {
			total, counts, row := make([]float64, len(c.rows)), make([]int, len(c.rows)), make([]int, len(lp))
			for k, p := range positions {
				for p >= batch.Offsets[row[k]+1] {
					row[k]++
				}
				total[row[k]] += float64(lp[k])
				counts[row[k]]++
			}
			loss, d := c.loss(total, counts)
			if math.Abs(loss-c.want.Loss) > 1e-5 {
				t.Errorf("%s: loss %v, recorded %v", c.name, loss, c.want.Loss)
			}
			out := make([]float32, len(lp))
			for k := range out {
				out[k] = float32(d[row[k]])
			}
			return out
		})
		if err != nil {
			t.Fatal(err)
		}
		byName := map[string]*tensor.Tensor{}
		for _, g := range grads.Matrices() {
			byName[g.Name] = g.T
		}
		var ratios, samples []float32
		norms, err := f.Floats(c.name + ".norms")
		if err != nil {
			t.Fatal(err)
		}
		for k, name := range rows.Adapter.Matrices {
			data := byName[name].Data()
			ratios = append(ratios, float32(math.Sqrt(tensor.SumSquares(data))/float64(norms[k])))
			for s := range 8 {
				samples = append(samples, data[len(data)*(2*s+1)/16])
			}
		}
		for k, ratio := range ratios {
			if math.Abs(float64(ratio)-1) > slack*e.Norm+1e-6 {
				t.Errorf("%s: the norm of %s is %v times the recorded one, tolerance %v", c.name, rows.Adapter.Matrices[k], ratio, slack*e.Norm)
			}
		}
		near(t, f, c.name+".samples", samples, slack*e.Samples)
	}
}
