package transformer

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/opencharacter/opencharacter/tensor"
)

// source is a file, or folder, of named tensors: GGUF or safetensors.
type source interface {
	names() []string
	shape(name string) ([]int, bool)
	readRow(name string, row int, dst []float32) error
}

// blockSource is a source whose matrices may be stored as tensor.Q4 or tensor.Q8 has them.
type blockSource interface {
	format(name string) tensor.Format
	readBlocks(name string, row int, q []byte, scale, minimum []uint16) error
}

// loader fills a model from a source. It first claims every tensor the config calls
// for, checking shapes, and reads rows only when all is known to fit.
type loader struct {
	src  source
	from string              // the format's name, for errors
	name func(string) string // Hugging Face name to the source's name
	plus float32             // added to norm weights: Gemma's safetensors hold them less 1
	skip []string            // prefixes of tensors that are no part of the text model
	// blocks reads matrices that shall stay quantised; nil rounds all to bf16.
	blocks blockSource
	// dry checks that everything is there and reads vectors only: matrices stay nil.
	dry  bool
	used map[string]bool
	jobs []job
	errs []error
}

// job is a block of rows of one matrix to read.
type job struct {
	name     string
	w        *tensor.Weight
	from, to int
	permute  func(row int) int // row in the file of a row of the model
}

// rowsPerJob balances the threads: the embedding of a small model is a fifth of it.
const rowsPerJob = 1024

// load builds the model. permute, if not nil, gives the row order of the source's
// query and key matrices.
func (l *loader) load(cfg Config, permute func(row int) int) (*Model, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	l.used = map[string]bool{}
	if err := l.checkSize(cfg); err != nil {
		return nil, err
	}
	m := newModel(cfg)
	m.embed = l.matrix("model.embed_tokens.weight", cfg.Vocab, cfg.Width, nil)
	if cfg.Tied {
		m.head = m.embed
		l.used[l.name("lm_head.weight")] = true // some files repeat the embedding
	} else {
		m.head = l.matrix("lm_head.weight", cfg.Vocab, cfg.Width, nil)
	}
	m.finalNorm = l.norm("model.norm.weight", cfg.Width)
	var divisors []float32
	if cfg.RopeScaling.Type == ropeDivisors {
		divisors = l.vector(ropeFreqs, cfg.HeadDim/2)
	}
	if err := m.setRope(divisors); err != nil {
		l.errs = append(l.errs, fmt.Errorf("tensor %q: %w", ropeFreqs, err))
	}
	for i := range m.layers {
		w, prefix := &m.layers[i], fmt.Sprintf("model.layers.%d.", i)
		for _, v := range cfg.norms(w) {
			*v.at = l.norm(prefix+v.name+".weight", v.n)
		}
		for p := range projCount {
			out, in := cfg.dims(p)
			order := permute
			if p != projQ && p != projK {
				order = nil
			}
			w.proj[p] = l.matrix(prefix+projNames[p]+".weight", out, in, order)
		}
	}
	l.rejectUnknown()
	if len(l.errs) > 0 {
		return nil, l.summary()
	}
	if err := l.read(); err != nil {
		return nil, err
	}
	return m, nil
}

// checkSize looks for one tensor of the last layer and compares the embedding with the
// config before memory is set aside for them, so that a false config costs nothing.
func (l *loader) checkSize(cfg Config) error {
	embed := l.name("model.embed_tokens.weight")
	shape, ok := l.src.shape(embed)
	if !ok {
		return fmt.Errorf("%s: tensor %q is missing; re-download the model", l.from, embed)
	}
	if len(shape) == 2 && shape[0] != cfg.Vocab {
		return fmt.Errorf("%s: the embedding %q has %d rows and the config says a vocabulary of %d; the files do not belong together", l.from, embed, shape[0], cfg.Vocab)
	}
	last := l.name(fmt.Sprintf("model.layers.%d.mlp.down_proj.weight", cfg.Layers-1))
	if _, ok := l.src.shape(last); !ok {
		return fmt.Errorf("%s: tensor %q is missing though the config says %d layers; re-download the model", l.from, last, cfg.Layers)
	}
	return nil
}

// claim checks that a tensor is there with the given shape.
func (l *loader) claim(hf string, want ...int) (string, bool) {
	name := l.name(hf)
	got, ok := l.src.shape(name)
	l.used[name] = true
	switch {
	case !ok:
		l.errs = append(l.errs, fmt.Errorf("tensor %q is missing", name))
	case !slices.Equal(got, want):
		l.errs = append(l.errs, fmt.Errorf("tensor %q has shape %v, the config calls for %v", name, got, want))
	default:
		return name, true
	}
	return name, false
}

func (l *loader) matrix(hf string, out, in int, permute func(int) int) *tensor.Weight {
	name, ok := l.claim(hf, out, in)
	if !ok || l.dry {
		return nil
	}
	w := l.newWeight(name, out, in)
	for from := 0; from < out; from += rowsPerJob {
		l.jobs = append(l.jobs, job{name: name, w: w, from: from, to: min(from+rowsPerJob, out), permute: permute})
	}
	return w
}

func (l *loader) newWeight(name string, out, in int) *tensor.Weight {
	if l.blocks != nil {
		if f := l.blocks.format(name); f != tensor.StoredBF16 {
			return tensor.NewQuantized(out, in, f)
		}
	}
	return tensor.NewWeight(out, in)
}

func (l *loader) vector(hf string, n int) []float32 {
	name, ok := l.claim(hf, n)
	if !ok {
		return nil
	}
	v := make([]float32, n)
	if err := l.src.readRow(name, 0, v); err != nil {
		l.errs = append(l.errs, err)
	} else if !finite(v) {
		l.errs = append(l.errs, fmt.Errorf("tensor %q holds a value that is not finite", name))
	}
	return v
}

// norm reads the weight of an RMS norm.
func (l *loader) norm(hf string, n int) []float32 {
	v := l.vector(hf, n)
	if l.plus != 0 {
		for i := range v {
			v[i] += l.plus
		}
	}
	return v
}

// rejectUnknown refuses tensors that the forward pass would silently leave out.
func (l *loader) rejectUnknown() {
	for _, name := range l.src.names() {
		skipped := slices.ContainsFunc(l.skip, func(p string) bool { return strings.HasPrefix(name, p) })
		if !l.used[name] && !skipped && !strings.HasSuffix(name, "rotary_emb.inv_freq") {
			l.errs = append(l.errs, fmt.Errorf("tensor %q is not part of a plain %s model and would be ignored", name, l.from))
		}
	}
}

// summary joins the first few complaints.
func (l *loader) summary() error {
	const most = 3
	errs := l.errs
	if len(errs) > most {
		errs = append(slices.Clone(errs[:most]), fmt.Errorf("and %d more", len(errs)-most))
	}
	return fmt.Errorf("%s: the weights do not match the config: %w", l.from, errors.Join(errs...))
}

// read fills all matrices, block by block on all cores.
func (l *loader) read() error {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, j := range l.jobs {
		g.Go(func() error {
			set := l.rounded(j)
			if j.w.Format() != tensor.StoredBF16 {
				set = l.quantized(j)
			}
			for r := j.from; r < j.to; r++ {
				at := r
				if j.permute != nil {
					at = j.permute(r)
				}
				if err := set(r, at); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// rounded returns what sets row r of a job's matrix to row at of the source, rounded.
func (l *loader) rounded(j job) func(r, at int) error {
	row := make([]float32, j.w.In)
	return func(r, at int) error {
		if err := l.src.readRow(j.name, at, row); err != nil {
			return err
		}
		if !finiteBF16(row) {
			return fmt.Errorf("%s: tensor %q, row %d holds a value that is not finite in bf16; re-download the model", l.from, j.name, at)
		}
		j.w.SetRow(r, row)
		return nil
	}
}

// quantized is rounded for a matrix that stays as it is; the source checks its numbers.
func (l *loader) quantized(j job) func(r, at int) error {
	n := j.w.In / tensor.Block
	q, scale, minimum := make([]byte, j.w.In), make([]uint16, n), make([]uint16, n)
	if j.w.Format() == tensor.Q8 {
		minimum = nil
	}
	return func(r, at int) error {
		if err := l.blocks.readBlocks(j.name, at, q, scale, minimum); err != nil {
			return err
		}
		j.w.SetBlocks(r, q, scale, minimum)
		return nil
	}
}

// finiteBF16 reports whether every value stays finite when rounded to bf16, which turns
// the greatest float32s into infinity. A NaN fails both comparisons.
func finiteBF16(x []float32) bool {
	const limit = 0x1.ffp127 // half way from the greatest bf16 to the next power of two
	for _, v := range x {
		if !(v < limit && v > -limit) {
			return false
		}
	}
	return true
}

// finite reports whether no value is infinite or NaN: those alone do not vanish
// when multiplied by zero.
func finite(x []float32) bool {
	var s float32
	for _, v := range x {
		s += v * 0
	}
	return s == 0
}
