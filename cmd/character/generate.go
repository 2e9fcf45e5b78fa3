package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/lm/sample"
	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

// modelFlags name one of a run's models and two files.
type modelFlags struct{ id, which, in, out, weights string }

func (f *modelFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.id, "id", "", "the run")
	c.Flags().StringVar(&f.which, "model", activities.WhichCharacter, "base, dpo or character")
	c.Flags().StringVar(&f.in, "in", "", "JSONL file to read, - for standard input")
	c.Flags().StringVar(&f.out, "out", "", "JSONL file to write (default: standard output)")
}

// addWeights is for commands that draw text.
func (f *modelFlags) addWeights(c *cobra.Command) {
	c.Flags().StringVar(&f.weights, "weights", "bf16", "bf16, or quantized: the GGUF file's own Q4 or Q8 blocks; quicker for one row at a time")
}

// load opens the model.
func (f *modelFlags) load(cmd *cobra.Command, e *env) (*activities.Loaded, []*transformer.Adapter, activities.Record, error) {
	return activities.OpenRunModel(cmd.Context(), e.store, hubOptions(cmd), f.id, f.which, f.weights)
}

// named takes the run from the argument or from --id, and checks the flags.
func (f *modelFlags) named(args []string) error {
	if len(args) == 1 {
		if f.id != "" && f.id != args[0] {
			return usage(fmt.Errorf("the argument names run %s and --id run %s: give one", args[0], f.id))
		}
		f.id = args[0]
	}
	return f.check()
}

func (f *modelFlags) check() error {
	if f.id == "" {
		return usage(fmt.Errorf("--id is missing: name the run (`character status` lists them)"))
	}
	if f.in == "" {
		return usage(fmt.Errorf("--in is missing: name a JSONL file"))
	}
	if w := f.weights; w != "" && w != "bf16" && w != "quantized" {
		return usage(fmt.Errorf("--weights %q is not known; give bf16 or quantized", w))
	}
	if !slices.Contains(activities.WhichModels(), f.which) {
		return usage(fmt.Errorf("--model %q is not one of a run's models; give %s", f.which, strings.Join(activities.WhichModels(), ", ")))
	}
	return nil
}

type samplingFlags struct {
	temperature, topP, penalty float64
	topK, max                  int
	seed                       uint64
}

func (f *samplingFlags) add(c *cobra.Command, temperature float64, maxTokens int) {
	c.Flags().Float64Var(&f.temperature, "temperature", temperature, "0 = greedy")
	c.Flags().Float64Var(&f.topP, "top-p", .95, "nucleus sampling")
	c.Flags().IntVar(&f.topK, "top-k", 0, "0 = off")
	c.Flags().Float64Var(&f.penalty, "repetition-penalty", 1.1, "1 = off")
	c.Flags().IntVar(&f.max, "max-tokens", maxTokens, "most new tokens an answer")
	c.Flags().Uint64Var(&f.seed, "seed", 1, "same seed, same answers")
}

// check refuses what no sampler can do, before anything is loaded.
func (f *samplingFlags) check() error {
	bad := func(flag string, v any, want string) error {
		return usage(fmt.Errorf("--%s %v is impossible; give %s", flag, v, want))
	}
	switch {
	case !(f.temperature >= 0) || math.IsInf(f.temperature, 1):
		return bad("temperature", f.temperature, "0 (greedy) or more, such as 0.7")
	case !(f.topP >= 0 && f.topP <= 1):
		return bad("top-p", f.topP, "0 to 1 (1 = off)")
	case f.topK < 0:
		return bad("top-k", f.topK, "0 (off) or more")
	case !(f.penalty >= 0) || math.IsInf(f.penalty, 1):
		return bad("repetition-penalty", f.penalty, "0 or more (1 = off)")
	case f.max < 0:
		return bad("max-tokens", f.max, "0 (up to the model's context) or more")
	}
	return nil
}

func (f *samplingFlags) params(m *activities.Loaded) sample.Params {
	return sample.Params{Temperature: f.temperature, TopP: f.topP, TopK: f.topK, RepetitionPenalty: f.penalty, MaxTokens: f.max, Seed: f.seed, StopTokens: m.Chat.EndTokens()}
}

// generated is a row of `generate --out`.
type generated struct {
	Prompt   string `json:"prompt"`
	Response string `json:"response"`
	Finish   string `json:"finish_reason"`
	Tokens   int    `json:"tokens"`
}

func generateCmd() *cobra.Command {
	var f modelFlags
	var s samplingFlags
	c := &cobra.Command{
		Use:   "generate --id ID --in prompts.jsonl",
		Short: "Answer prompts with one of a run's models",
		Long: `Answer prompts with a run's base, dpo or character model, without any constitution.
In: JSONL rows {"prompt": ...} or {"messages": [{"role", "content"}, ...]}. Out: {prompt, response, finish_reason, tokens}.`,
		Example: `  character generate --id captain --model character --in prompts.jsonl --out answers.jsonl --temperature 0 --max-tokens 64`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(f.check(), s.check()); err != nil {
				return err
			}
			rows, err := readRows(f.in, false)
			if err != nil {
				return err
			}
			e, err := open(cmd)
			if err != nil {
				return err
			}
			defer e.close()
			m, stack, _, err := f.load(cmd, e)
			if err != nil {
				return err
			}
			out := make([]generated, len(rows))
			reqs := make([]sample.Request, len(rows))
			for i, r := range rows {
				msgs := r.conversation()
				ids, err := m.Chat.Prompt(msgs)
				if err != nil {
					return fmt.Errorf("%s row %d: %w", f.in, i+1, err)
				}
				reqs[i] = sample.Request{Key: uint64(i), Prompt: ids, Params: s.params(m)}
				out[i].Prompt = msgs[len(msgs)-1].Content
			}
			total := 0
			err = sample.Generate(cmd.Context(), m.Model, stack, reqs, sample.Options{Decode: m.Tokens.DecodeText,
				Progress: func(done, tokens int) {
					total += tokens
					progressLine(fmt.Sprintf("%d of %d rows, %d tokens", done, len(rows), total))
				}},
				func(i int, r sample.Result) error {
					out[i].Response, out[i].Finish, out[i].Tokens = m.Text(r), r.Finish, len(r.Tokens)
					return nil
				})
			progressLine("")
			if err != nil {
				return err
			}
			return writeRows(f.out, cmd.OutOrStdout(), out)
		},
	}
	f.add(c)
	f.addWeights(c)
	s.add(c, .3, 256)
	return c
}

func scoreCmd() *cobra.Command {
	var f modelFlags
	c := &cobra.Command{
		Use:   "score --id ID --in rows.jsonl",
		Short: "Log-probs of given answers under one of a run's models",
		Long: `Score answers under a run's base, dpo or character model.
In: JSONL rows {"prompt": ..., "response": ...} (or "messages" instead of "prompt"). Out adds {logprob, tokens}: the natural
log-prob summed over the response's tokens and its end token, and how many those are.`,
		Example: `  character score --id captain --model base --in rows.jsonl --out scores.jsonl`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			rows, err := readRows(f.in, true)
			if err != nil {
				return err
			}
			e, err := open(cmd)
			if err != nil {
				return err
			}
			defer e.close()
			m, stack, _, err := f.load(cmd, e)
			if err != nil {
				return err
			}
			ws := transformer.NewWorkspace()
			out := make([]map[string]json.RawMessage, len(rows))
			const batch = 8
			for i := 0; i < len(rows); i += batch {
				if err := cmd.Context().Err(); err != nil {
					return err
				}
				var ex []train.Example
				for j, r := range rows[i:min(i+batch, len(rows))] {
					msgs := r.conversation()
					last := msgs[len(msgs)-1]
					x, err := activities.EncodeAnswer(m, msgs[:len(msgs)-1], last.Content, *r.Response)
					if err != nil {
						return fmt.Errorf("%s row %d: %w", f.in, i+j+1, err)
					}
					ex = append(ex, x)
				}
				sums, counts, err := train.SumLogProbs(m.Model, ws, ex, stack)
				if err != nil {
					return err
				}
				for j := range sums {
					if out[i+j], err = rows[i+j].with(sums[j], counts[j]); err != nil {
						return fmt.Errorf("%s row %d: %w", f.in, i+j+1, err)
					}
				}
				progressLine(fmt.Sprintf("%d of %d rows", i+len(sums), len(rows)))
			}
			progressLine("")
			return writeRows(f.out, cmd.OutOrStdout(), out)
		},
	}
	f.add(c)
	return c
}

// progressLine rewrites one line on standard error when that is a terminal.
func progressLine(s string) {
	if isTerminal(os.Stderr) {
		fmt.Fprintf(os.Stderr, "\r\033[K%s", s)
	}
}
