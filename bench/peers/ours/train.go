//go:build unix

package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

// maker draws rows of one length.
type maker struct {
	r           *rand.Rand
	vocab       int
	prompt, new int
}

func newMaker(m *transformer.Model, j job) maker {
	return maker{rand.New(rand.NewPCG(1, 1)), m.Vocab, j.prompt, j.new}
}

// example is a row of prompt and answer; same, if given, lends its prompt.
func (k maker) example(same []int32) train.Example {
	e := train.Example{Tokens: ids(k.r, k.vocab, k.prompt+k.new), Mask: make([]bool, k.prompt+k.new)}
	copy(e.Tokens[:k.prompt], same)
	for i := k.prompt; i < len(e.Mask); i++ {
		e.Mask[i] = true
	}
	return e
}

// score times summed log-probs of rows that have nothing in common.
func score(m *transformer.Model, j job) (line, error) {
	k, ws := newMaker(m, j), transformer.NewWorkspace()
	return timed(j.steps, j.rows*(j.prompt+j.new), func() error {
		rows := make([]train.Example, j.rows)
		for i := range rows {
			rows[i] = k.example(nil)
		}
		_, _, err := train.SumLogProbs(m, ws, rows, nil)
		return err
	})
}

// dpo times steps on new pairs. TRL computes the reference in every step; ours is
// stored, so it is computed inside the timed step here too: once, as a run of one epoch
// needs it.
func dpo(m *transformer.Model, j job) (line, error) {
	t, err := train.New(m, nil, transformer.NewAdapter(m.Config, j.dpoRank, float64(j.dpoRank), 1),
		train.Options{Loss: train.LossDPO, NLL: 0.2, LR: 2e-4, ClipNorm: 1, BatchSize: j.rows})
	if err != nil {
		return line{}, err
	}
	k, ws := newMaker(m, j), transformer.NewWorkspace()
	return timed(j.steps, j.rows*2*(j.prompt+j.new), func() error {
		var batch []train.Pair
		var both []train.Example
		for i := range j.rows {
			c := k.example(nil)
			p := train.Pair{ID: fmt.Sprint(i), Chosen: c, Rejected: k.example(c.Tokens[:j.prompt])}
			batch, both = append(batch, p), append(both, p.Chosen, p.Rejected)
		}
		sums, _, err := train.SumLogProbs(m, ws, both, nil)
		if err != nil {
			return err
		}
		for i := range batch {
			batch[i].RefChosen, batch[i].RefRejected = sums[2*i], sums[2*i+1]
		}
		_, err = t.StepDPO(batch)
		return err
	})
}

// sft times steps on new rows.
func sft(m *transformer.Model, j job) (line, error) {
	t, err := train.New(m, nil, transformer.NewAdapter(m.Config, j.sftRank, float64(j.sftRank), 2),
		train.Options{Loss: train.LossSFT, LR: 2e-5, ClipNorm: 1, BatchSize: j.rows})
	if err != nil {
		return line{}, err
	}
	k := newMaker(m, j)
	return timed(j.steps, j.rows*(j.prompt+j.new), func() error {
		var batch []train.Row
		for i := range j.rows {
			batch = append(batch, train.Row{ID: fmt.Sprint(i), Example: k.example(nil)})
		}
		_, err := t.StepSFT(batch)
		return err
	})
}
