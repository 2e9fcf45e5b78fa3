package activities

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/lm/export"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/lm/tokenizer"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

// Forms in which ExportWith writes whole models, each into a folder of its name.
const (
	FormatSafetensors = "safetensors"     // merged, bf16, a Hugging Face folder
	FormatF32         = "safetensors-f32" // the same in float32: nothing is rounded away
	FormatBF16        = "gguf-bf16"       // merged, one GGUF file
	FormatQ8          = "gguf-q8_0"       // merged, one GGUF file
	FormatLoRA        = "gguf-lora"       // the adapters alone, for llama.cpp beside a GGUF file of the base
)

// ModelFormats lists them.
func ModelFormats() []string {
	return []string{FormatSafetensors, FormatF32, FormatBF16, FormatQ8, FormatLoRA}
}

// Models asks for whole models beside the other files of an export. The zero value asks for none.
type Models struct {
	Formats []string    // of ModelFormats, each once
	Hub     hub.Options // where this machine keeps models: the base model's weights are needed
	// Progress is told which folder is written; nil tells nobody.
	Progress func(format string)
}

// base checks what is asked for before anything is written and finds the base model.
func (m Models) base(r Record, p Plan) (hub.Model, error) {
	if len(m.Formats) == 0 {
		return hub.Model{}, nil
	}
	for i, f := range m.Formats {
		if !slices.Contains(ModelFormats(), f) {
			return hub.Model{}, fmt.Errorf("export: format %q is not known; there are %s", f, strings.Join(ModelFormats(), ", "))
		}
		if slices.Contains(m.Formats[:i], f) {
			return hub.Model{}, fmt.Errorf("export: format %s is named twice", f)
		}
	}
	if _, err := r.Stack(WhichCharacter); err != nil {
		return hub.Model{}, fmt.Errorf("export: a model is merged of both adapters: %w", err)
	}
	base, err := hub.Resolve(modelHere(p.Model.Name, m.Hub), m.Hub)
	if err != nil {
		return hub.Model{}, fmt.Errorf("export: the base model's weights are needed: %w", err)
	}
	return base, sameModel(r.ID, p, base.SHA256)
}

// roomHint says what to do about a full disk.
func roomHint(err error, dir string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("the disk of %s is full: %w; nothing was kept; make room or name another --out", filepath.Dir(dir), err)
	}
	return err
}

// models writes the folders of whole models. Each has checksums of its own, so those of the export stay what they are.
func (x *exporter) models(m Models, base hub.Model) {
	if x.err != nil || len(m.Formats) == 0 {
		return
	}
	x.err = func() (err error) {
		src, err := export.Open(base)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, src.Close()) }()
		both, err := x.trained(src.Stream.Config)
		if err != nil {
			return err
		}
		character, err := joined(both, x.p)
		if err != nil {
			return err
		}
		ends, err := endTokens(base)
		if err != nil {
			return err
		}
		o := export.Options{Name: x.p.Name + " (" + base.Name + ")", Adapter: character, EndTokens: ends}
		for _, format := range m.Formats {
			if err := x.ctx.Err(); err != nil {
				return err
			}
			if m.Progress != nil {
				m.Progress(format)
			}
			dir := filepath.Join(x.dir, format)
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			name := filepath.Join(dir, x.p.Name)
			switch format {
			case FormatSafetensors:
				err = src.Safetensors(dir, o)
			case FormatF32:
				full := o
				full.Float32 = true
				err = src.Safetensors(dir, full)
			case FormatBF16:
				err = src.GGUF(name+"-bf16.gguf", "BF16", o)
			case FormatQ8:
				err = src.GGUF(name+"-q8_0.gguf", "Q8_0", o)
			case FormatLoRA:
				dpo := o
				dpo.Adapter, dpo.Name = both[0], x.p.Name+" after DPO ("+base.Name+")"
				err = errors.Join(src.LoRA(name+"-lora.gguf", o), src.LoRA(name+"-dpo-lora.gguf", dpo))
			}
			if err != nil {
				return err
			}
			card, err := modelCard(x.r, x.p, base, format)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, "README.md"), card, 0o644); err != nil {
				return err
			}
			if err := folderSums(dir); err != nil {
				return err
			}
		}
		return nil
	}()
}

// trained reads the adapters of DPO and SFT.
func (x *exporter) trained(cfg transformer.Config) ([]*transformer.Adapter, error) {
	refs, err := x.r.Stack(WhichCharacter)
	if err != nil {
		return nil, err
	}
	var out []*transformer.Adapter
	for _, ref := range refs {
		files := map[string][]byte{}
		for name, r := range ref.Files {
			if files[name], err = x.s.Get(x.ctx, r); err != nil {
				return nil, err
			}
		}
		a, err := transformer.ReadPEFT(files, cfg)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// endTokens asks the chat template what ends an answer.
func endTokens(base hub.Model) ([]int32, error) {
	text, meta, template, err := base.TokenizerSource()
	if err != nil {
		return nil, err
	}
	var tok *tokenizer.Tokenizer
	if len(text) > 0 {
		tok, err = tokenizer.FromJSON(text)
	} else {
		tok, err = tokenizer.FromGGUF(meta)
	}
	if err != nil {
		return nil, err
	}
	format, err := chat.New(tok, template)
	if err != nil {
		return nil, err
	}
	return format.EndTokens(), nil
}

// folderSums writes SHA256SUMS of all files of a folder, in sha256sum's form.
func folderSums(dir string) error {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s  %s\n", hex.EncodeToString(h.Sum(nil)), d.Name())
		return nil
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(b.String()), 0o644)
}
